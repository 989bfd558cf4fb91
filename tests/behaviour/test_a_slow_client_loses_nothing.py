"""A slow client reads older messages from Kafka: none is lost or comes twice, and no other client is slowed down."""

from __future__ import annotations

import json
from functools import partial

import pytest
import trio

from tests.support.brokers import Broker, KafkaCluster
from tests.support.calls import metric, running, until
from tests.support.chats import Chats, message
from tests.support.clients import Opcode, RawClient, open_chat, open_raw, receive_path
from tests.support.deadlines import HANG_SECONDS

SMALL_BUFFER = 4096  # bytes that the kernel takes for a client that does not read
MEMORY_BYTES = 65_536
PADDING = "x" * 1000


async def produce(broker: Broker, topic: str, first: int, count: int) -> None:
    """Put messages of 1 KB there whose texts begin with their numbers."""
    values = [message(f"{number} {PADDING}") for number in range(first, first + count)]
    await trio.to_thread.run_sync(partial(broker.produce_many, topic, values, partition=0))


async def numbers(client: RawClient, count: int, *, seconds: float = HANG_SECONDS) -> list[int]:
    """Read `count` messages and return the numbers at the beginning of their texts."""
    found = []
    with trio.fail_after(seconds):
        for _ in range(count):
            text = json.loads(await client.next_text(seconds=seconds))["text"]
            found.append(int(text.split()[0]))
    return found


@pytest.mark.promise("p-less-memory")
async def test_who_falls_behind_the_memory_catches_up_and_goes_on_live(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("global")
    broker.create_topic(topic)
    async with (
        running(chats.settings_for(broker, memory__bytes=MEMORY_BYTES)) as server,
        open_raw(server.url, receive_path("slow"), receive_buffer=SMALL_BUFFER) as slow,
        open_chat(server.url, "quick") as quick,
    ):
        await produce(broker, topic, 0, 2000)
        assert [int(delivery.text.split()[0]) for delivery in await quick.take(2000)] == list(range(2000))
        assert await numbers(slow, 1000) == list(range(1000))
        # It falls behind again while it catches up.
        await produce(broker, topic, 2000, 1000)
        assert await numbers(slow, 2000) == list(range(1000, 3000))
        await produce(broker, topic, 3000, 1)
        assert await numbers(slow, 1) == [3000]
        assert await metric(server.url, "page_reads_total") >= 1
        assert await metric(server.url, "memory_held_bytes") <= MEMORY_BYTES


async def test_twenty_slow_clients_share_the_pages(broker: Broker, chats: Chats) -> None:
    topic, count = chats.topic("global"), 3000
    broker.create_topic(topic)

    async def read_all(client: RawClient) -> None:
        assert await numbers(client, count) == list(range(count))

    async with running(chats.settings_for(broker, memory__bytes=1 << 20)) as server, trio.open_nursery() as nursery:
        joined: list[RawClient] = []

        async def come(user: str, *, task_status: trio.TaskStatus[None]) -> None:
            async with open_raw(server.url, receive_path(user), receive_buffer=SMALL_BUFFER) as client:
                joined.append(client)
                task_status.started()
                await all_sent.wait()
                await read_all(client)

        all_sent = trio.Event()
        for number in range(20):
            await nursery.start(come, f"slow{number}")
        await produce(broker, topic, 0, count)
        all_sent.set()
        await until(lambda: all(len(client.frames_read) == count for client in joined))
        # 3 MB are some 18 pages of at most 512 offsets and 256 KB; each client for itself would read all of them, 360 in all. How many
        # clients are still together at a page depends on the machine: 45 reads alone, 93 beside two other suites.
        reads = await metric(server.url, "page_reads_total")
        assert 1 <= reads <= 180, reads


async def test_the_past_is_read_over_transactions_as_it_counts(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("global")
    kafka.create_topic(topic)
    transactions = [await trio.to_thread.run_sync(kafka.transaction) for _ in range(8)]
    expected: list[int] = []
    async with (
        running(chats.settings_for(kafka, memory__bytes=MEMORY_BYTES)) as server,
        open_raw(server.url, receive_path("slow"), receive_buffer=SMALL_BUFFER) as slow,
    ):
        await produce(kafka, topic, 0, 300)
        expected += range(300)
        for turn, transaction in enumerate(transactions):
            first = 1000 * (turn + 1)
            texts = [f"{number} {PADDING}" for number in range(first, first + 30)]
            await trio.to_thread.run_sync(lambda t=transaction, some=texts: [t.produce(topic, message(text)) for text in some])
            await trio.to_thread.run_sync(transaction.abort if turn % 2 else transaction.commit)
            expected += [] if turn % 2 else range(first, first + 30)
        await produce(kafka, topic, 9999, 1)
        assert await numbers(slow, len(expected) + 1) == [*expected, 9999]
        assert await metric(server.url, "page_reads_total") >= 1


@pytest.mark.deadline(90)
async def test_the_past_is_read_over_the_holes_of_compaction(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("global")
    await trio.to_thread.run_sync(partial(kafka.create_topic, topic, cleanup_policy="compact", segment_ms=100))

    def write(number: int) -> None:
        kafka.produce(topic, message(f"{number} {PADDING}"), key=str(number % 50))

    def left() -> int:
        return len(kafka.records(topic))

    async with (
        running(chats.settings_for(kafka, memory__bytes=MEMORY_BYTES)) as server,
        open_raw(server.url, receive_path("slow"), receive_buffer=SMALL_BUFFER) as slow,
    ):
        last = 500
        await trio.to_thread.run_sync(lambda: [write(number) for number in range(last)])
        with trio.fail_after(HANG_SECONDS):
            # A new record closes the segment before it; only closed ones are compacted.
            while await trio.to_thread.run_sync(left) > 200:
                await trio.to_thread.run_sync(write, last)
                last += 1
        await trio.to_thread.run_sync(write, last)
        got = await numbers(slow, 1)
        while got[-1] < last:
            got += await numbers(slow, 1)
        assert got == sorted(set(got)), "not in order, or something twice"
        assert set(got) >= set(range(last - 49, last + 1)), "the last record of some key is missing, which no compaction takes"
        assert len(got) < last, "nothing was compacted away before it was read"


@pytest.mark.promise("p-pings")
async def test_a_slow_client_that_pings_never_sees_a_broken_frame(broker: Broker, chats: Chats) -> None:
    topic, count = chats.topic("global"), 1500
    broker.create_topic(topic)
    async with (
        running(chats.settings_for(broker, memory__bytes=MEMORY_BYTES)) as server,
        open_raw(server.url, receive_path("slow"), receive_buffer=SMALL_BUFFER) as slow,
        trio.open_nursery() as nursery,
    ):
        pings = 0

        async def ping() -> None:
            nonlocal pings
            while True:
                await slow.send_frame(Opcode.PING, str(pings).encode())
                pings += 1
                await trio.sleep(0.001)

        nursery.start_soon(ping)
        nursery.start_soon(produce, broker, topic, 0, count)
        assert await numbers(slow, count) == list(range(count))  # each byte is checked as it is read
        nursery.cancel_scope.cancel()
        pongs = [int(frame.payload) for frame in slow.frames_read if frame.opcode is Opcode.PONG]
        assert pongs == list(range(len(pongs)))
        assert len(pongs) > 20, "too few pings came between the messages to show anything"


async def test_who_never_reads_costs_little_disturbs_nobody_and_is_cut_off(broker: Broker, chats: Chats) -> None:
    topic, count, stuck = chats.topic("global"), 2000, 10
    broker.create_topic(topic)
    settings = chats.settings_for(broker, limits__write_seconds=2.0, memory__bytes=1 << 20)
    async with running(settings) as server, open_chat(server.url, "quick") as quick, trio.open_nursery() as nursery:
        owed: list[float] = []

        async def watch(*, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
            with trio.CancelScope() as scope:
                task_status.started(scope)
                while True:
                    owed.append(await metric(server.url, "owed_bytes"))
                    await trio.sleep(0.02)

        async def never_read(*, task_status: trio.TaskStatus[None]) -> None:
            async with open_raw(server.url, receive_path("stuck"), receive_buffer=SMALL_BUFFER) as client:
                task_status.started()
                await all_cut.wait()
                assert client.bytes_read < 10_000
                await client.wait_ended()

        all_cut = trio.Event()
        for _ in range(stuck):
            await nursery.start(never_read)
        watching = await nursery.start(watch)
        await produce(broker, topic, 0, count)
        assert [int(delivery.text.split()[0]) for delivery in await quick.take(count)] == list(range(count))
        with trio.fail_after(HANG_SECONDS):
            while await metric(server.url, 'connections_aborted_total{reason="write_seconds"}') < stuck:
                pass
        assert await metric(server.url, "sessions") == 1
        await produce(broker, topic, count, 1)
        assert (await quick.next()).text.startswith(f"{count} ")
        # Each is owed at most what one offer joins, though 20 MB were produced for them.
        assert 0 < max(owed) <= stuck * 300_000
        assert await metric(server.url, "owed_bytes") == 0
        watching.cancel()
        all_cut.set()
