"""Messages deleted before a client got them are reported to the exact offset: in each of hundreds of trials, away or connected."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import trio

from tests.prove.scale import dice, scaled, tell
from tests.support.brokers import KafkaCluster
from tests.support.calls import metric, running
from tests.support.chats import Chats, message
from tests.support.checker import Journal, Ledger, Record, assert_nothing_wrong
from tests.support.resuming_client import ResumingClient, resuming
from tests.support.resuming_visit import Cut
from tests.support.steady_producer import Room, made

TRIALS = scaled(200)
SMALL_BUFFER = 4096
MEMORY_BYTES = 65_536
PADDING = "x" * 1000


class Produced:
    """Records of one partition, by the ledger."""

    def __init__(self, kafka: KafkaCluster, room: Room) -> None:
        self.ledger = Ledger()
        self.end = 0
        self._kafka = kafka
        self._room = room

    async def more(self, count: int, padding: str = "") -> None:
        """Produce this many."""
        numbers = range(self.end, self.end + count)
        values = [message(f"{number} {padding}") for number in numbers]
        records = await trio.to_thread.run_sync(partial(self._kafka.produce_many, self._room.topic, values, partition=0))
        for number, record in zip(numbers, records, strict=True):
            self.ledger.produced(self._room.lanes[0], record.offset, Record(number))
        self.end = records[-1].offset + 1

    async def trim(self, before: int) -> None:
        """Delete what lies below an offset."""
        left = await trio.to_thread.run_sync(self._kafka.delete_records, self._room.topic, 0, before)
        assert left == before
        self.ledger.trimmed(self._room.lanes[0], before)


def told_gaps(client: ResumingClient) -> list[tuple[str, int, int, int, str]]:
    gaps = [control for control in client.visit.controls if control.type == "gap"]
    return [(gap.chat, gap.partition, gap.first_lost, gap.first_left, gap.cause) for gap in gaps]


@pytest.mark.deadline(240)
async def test_who_was_away_is_told_exactly_what_is_gone(kafka: KafkaCluster, chats: Chats):
    room = made(kafka, chats, "room")
    lane, produced, rng = room.lanes[0], Produced(kafka, room), dice("away")
    client = ResumingClient(Journal("client"), "ann", query=[("chat", "room")])
    client.journal.owe(lane, 0)
    gaps = 0
    async with running(chats.settings_for(kafka, memory__bytes=MEMORY_BYTES)) as server:
        with resuming([client]):
            await client.come(server.url)
            await client.read_until(lambda: client.visit.live is not None)
            for _ in range(TRIALS):
                await produced.more(rng.randint(1, 40))
                await client.read_until(lambda: client.journal.recorded[lane].offsets[-1:].tolist() == [produced.end - 1])
                had = produced.end
                await client.cut(rng.choice([Cut.FIN, Cut.RESET]))
                while await metric(server.url, "sessions"):  # noqa: ASYNC110 - then its records are not in memory any more
                    await trio.sleep(0.001)
                await produced.more(rng.randint(1, 40))
                before = rng.randint(max(0, had - 5), produced.end)
                await produced.trim(before)
                await client.come(server.url, in_frame=rng.random() < 0.3)
                await client.read_until(lambda: client.visit.live is not None)
                expected = [("room", 0, had, before, "retention")] if before > had else []
                assert told_gaps(client) == expected, f"stood at {had}, the first that is left is {before}"
                assert client.visit.resume == ("gap" if expected else "exact")
                gaps += len(expected)
            await produced.more(1)
            await client.read_until(lambda: client.journal.recorded[lane].offsets[-1] == produced.end - 1)
    tell("deleted while away", trials=TRIALS, gaps=gaps)
    assert_nothing_wrong(produced.ledger, [client.journal])
    assert 0 < gaps < TRIALS


@pytest.mark.deadline(240)
async def test_who_does_not_read_for_a_while_is_told_exactly_what_is_gone(kafka: KafkaCluster, chats: Chats):
    room = made(kafka, chats, "room")
    lane, produced, rng = room.lanes[0], Produced(kafka, room), dice("stuck")
    client = ResumingClient(Journal("client"), "ann", query=[("chat", "room")], receive_buffer=SMALL_BUFFER)
    client.journal.owe(lane, 0)
    recorded = client.journal.recorded[lane]
    gaps = 0
    async with running(chats.settings_for(kafka, memory__bytes=MEMORY_BYTES)) as server:
        with resuming([client]):
            await client.come(server.url)
            await client.read_until(lambda: client.visit.live is not None)
            for _ in range(TRIALS):
                told, had = len(told_gaps(client)), len(recorded.offsets)
                await produced.more(rng.randint(400, 700), PADDING)  # more than sockets and memory take
                before = rng.randint(produced.end - 300, produced.end)
                await produced.trim(before)
                await produced.more(1)
                await client.read_until(lambda: recorded.offsets[-1:].tolist() == [produced.end - 1])
                came, new = [-1, *recorded.offsets][had:], told_gaps(client)[told:]
                holes = [(first + 1, then) for first, then in itertools.pairwise(came) if then != first + 1]
                assert new == [("room", 0, first, then, "retention") for first, then in holes]
                gaps += len(new)
    tell("deleted while stuck", trials=TRIALS, gaps=gaps)
    assert_nothing_wrong(produced.ledger, [client.journal])
    assert gaps > TRIALS / 4
