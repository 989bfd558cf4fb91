"""After an unclean election every message is delivered or reported as lost: live, on resume, in history, whatever the new log's length."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any, NamedTuple

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.chat.resume_cursor import parse
from kafka_chat.delivery.audience.wanted_start import EARLIEST
from kafka_chat.delivery.history.query import PageQuery
from kafka_chat.delivery.log.partition_log import PartitionLog
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from tests.core.test_resumable_session import cursor_of, kinds, resumed, told, v1, visiting
from tests.support.cursor_bytes import first_id
from tests.support.events_client import EventsParser
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core

GLOBAL = "kafka.chat.global"


def range_of(gap: dict[str, Any]) -> tuple[int, int, str]:
    return gap["first_lost"], gap["first_left"], gap["cause"]


def messages(client: FakeClient) -> list[str]:
    return [kind for kind in kinds(client) if not kind.startswith("[")]


async def had(core: Core, count: int, **options: Any) -> str:
    """Return the cursor of a client that has received this many messages, with ids in it."""
    async with visiting(core, v1(**options)) as client:
        core.kafka.produce(GLOBAL, *[value(f"old {n}") for n in range(count)])
    assert len(messages(client)) == count
    return cursor_of(client)


@pytest.mark.promise("p-epochs", "p-future")
@pytest.mark.parametrize("written", [0, 5, 20, 50])  # the new log is shorter, shorter, equal, longer
@pytest.mark.parametrize("somebody_is_there", [True, False])
async def test_who_comes_back_with_a_place_that_is_lost_is_told_and_gets_what_is_there_now(autojump_clock, written, somebody_is_there):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        cursor = await had(core, 120)
        if somebody_is_there:
            core.audience.pin(GLOBAL)
        await wait_all_tasks_blocked()
        core.kafka.elect(GLOBAL, 100)
        core.kafka.produce(GLOBAL, *[value(f"new {n}") for n in range(written)])
        await wait_all_tasks_blocked()
        async with visiting(core, resumed(cursor)) as client:
            core.kafka.produce(GLOBAL, value("later"))
        assert told(client, "hello")[0]["resume"] == "future"
        assert [range_of(gap) for gap in told(client, "gap")] == [(120, 100, "truncated")]
        assert messages(client) == [*(f"new {n}" for n in range(written)), "later"]
        async with visiting(core, resumed(cursor_of(client))) as again:
            core.kafka.produce(GLOBAL, value("last"))
        assert told(again, "hello")[0]["resume"] == "exact"
        assert (messages(again), told(again, "gap")) == (["last"], [])


@pytest.mark.parametrize("written", [0, 5, 50])
async def test_who_is_there_is_told_where_the_log_has_lost_its_end_and_gets_what_is_there_now(autojump_clock, written):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with visiting(core, v1()) as client:
            core.kafka.produce(GLOBAL, *[value(f"old {n}") for n in range(120)])
            await wait_all_tasks_blocked()
            core.kafka.elect(GLOBAL, 100)
            core.kafka.produce(GLOBAL, *[value(f"new {n}") for n in range(written)])
        assert [range_of(gap) for gap in told(client, "gap")] == [(120, 100, "truncated")]
        assert messages(client)[120:] == [f"new {n}" for n in range(written)]
        async with visiting(core, resumed(cursor_of(client))) as again:
            pass
        # Told again where nothing has moved its place since: the one gap, which its client knows.
        assert [range_of(gap) for gap in told(again, "gap")] == ([] if written else [(120, 100, "truncated")])
        assert messages(again) == []


async def test_a_place_from_which_nothing_was_read_is_told_too(autojump_clock):
    """The epoch is that of the leader who told the end."""
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"old {n}") for n in range(120)])
        async with visiting(core, v1()) as first:
            pass
        core.kafka.elect(GLOBAL, 100)
        core.kafka.produce(GLOBAL, *[value(f"new {n}") for n in range(50)])
        async with visiting(core, resumed(cursor_of(first))) as client:
            pass
        assert [range_of(gap) for gap in told(client, "gap")] == [(120, 100, "truncated")]
        assert messages(client) == [f"new {n}" for n in range(50)]


async def test_a_clean_election_loses_nothing_and_is_asked_about_once_for_all(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        cursor = await had(core, 20)
        async with visiting(core, resumed(cursor)) as client:
            pass
        assert (told(client, "hello")[0]["resume"], core.kafka.epochs_asked) == ("exact", [])
        core.kafka.elect(GLOBAL)
        core.kafka.produce(GLOBAL, value("new"))
        async with visiting(core, resumed(cursor)) as client, visiting(core, resumed(cursor)) as other:
            pass
        for one in (client, other):
            assert (told(one, "hello")[0]["resume"], messages(one)) == ("exact", ["new"])
        assert set(core.kafka.epochs_asked) == {0}
        core.kafka.epochs_asked.clear()
        async with visiting(core, resumed(cursor_of(client))) as client:
            pass
        assert (messages(client), core.kafka.epochs_asked) == ([], [])


@pytest.mark.promise("p-without-epoch")
async def test_a_cursor_without_epochs_that_lies_beyond_the_end_skips_nothing_that_is_written_while_that_is_found_out(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        await had(core, 120)
        core.kafka.elect(GLOBAL, 100)
        topic_id = core.kafka.topics[GLOBAL].topic_id
        async with visiting(core, resumed(first_id(GLOBAL, topic_id, 0, 119))) as client:
            core.kafka.produce(GLOBAL, *[value(f"new {n}") for n in range(7)])
            await wait_all_tasks_blocked()
            await until_hello(client)
        assert [range_of(gap) for gap in told(client, "gap")] == [(120, 100, "truncated")]
        assert messages(client) == [f"new {n}" for n in range(7)]


async def test_a_cursor_that_the_log_comes_to_to_the_offset_has_lost_nothing(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        await had(core, 100)
        topic_id = core.kafka.topics[GLOBAL].topic_id
        async with visiting(core, resumed(first_id(GLOBAL, topic_id, 0, 119))) as client:
            core.kafka.produce(GLOBAL, *[value(f"had {n}") for n in range(20)])
            await trio.sleep(30)
            assert kinds(client) == ["[hello]", "[live]"]
            assert told(client, "hello")[0]["resume"] == "exact"
            core.kafka.produce(GLOBAL, value("new"))
        assert messages(client) == ["new"]


async def until_hello(client: FakeClient) -> None:
    while not told(client, "hello"):  # noqa: ASYNC110 - a client in memory tells nobody
        await trio.sleep(0.1)


@pytest.mark.parametrize("written", [5, 50])
async def test_a_page_of_history_says_what_was_rewritten_behind_its_cursor(autojump_clock, written):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"old {n}") for n in range(120)])
        page = await core.history.page(PageQuery(chat="global", limit=120))
        core.kafka.elect(GLOBAL, 100)
        core.kafka.produce(GLOBAL, *[value(f"new {n}") for n in range(written)])
        after = await core.history.page(PageQuery(chat="global", cursor=parse(page.next)))
        assert [(gap.first_lost, gap.first_left, gap.cause) for gap in after.gaps] == [(120, 100, LossCause.TRUNCATED)]
        assert len(after.messages) == written
        assert not after.closed
        last = await core.history.page(PageQuery(chat="global", cursor=parse(after.next)))
        assert (last.messages, last.gaps) == ([], [])


async def test_an_event_stream_says_it_as_a_socket_does(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        cursor = await had(core, 120)
        core.kafka.elect(GLOBAL, 100)
        core.kafka.produce(GLOBAL, *[value(f"new {n}") for n in range(50)])
        async with visiting(core, SessionOptions(format=Format.EVENTS, cursor=parse(cursor))) as client:
            pass
        kinds_of = [event.name for event in EventsParser().feed(client.got)]
        assert kinds_of[:2] == ["hello", "gap"]
        assert kinds_of.count("message") == 50


async def rewrite_unseen(core: Core, *, written: int) -> None:
    """Have a log of 120 messages lose the last 20 and get others in their place, which the Tail does not know yet."""
    core.kafka.create(GLOBAL)
    core.audience.pin(GLOBAL)
    await wait_all_tasks_blocked()
    core.kafka.produce(GLOBAL, *[value(f"old {n}", tag="x" * 1000) for n in range(120)])
    core.kafka.elect(GLOBAL, 100, tail=False)
    core.kafka.produce(GLOBAL, *[value(f"new {n}") for n in range(written)], tail=False)


async def test_a_page_that_was_rewritten_before_the_tail_knows_is_not_delivered_before_it_tells(autojump_clock):
    async with open_core(memory_bytes=65_536) as core:
        await rewrite_unseen(core, written=50)
        async with visiting(core, v1(start=EARLIEST)) as client:
            await trio.sleep(5)
            assert messages(client) == []
            core.kafka.listener.position_lost(core.kafka.key(GLOBAL), 120, 100, LossCause.TRUNCATED, epoch=1)
            core.kafka.catch_up(GLOBAL, 100)
            await trio.sleep(5)
        assert messages(client) == [*(f"old {n}" for n in range(100)), *(f"new {n}" for n in range(50))]
        assert told(client, "gap") == []  # it had nothing of what is lost


async def test_a_page_that_no_tail_explains_is_delivered_in_the_end(autojump_clock):
    async with open_core(memory_bytes=65_536) as core:
        await trio.sleep(1000)
        await rewrite_unseen(core, written=20)
        async with visiting(core, v1(start=EARLIEST)) as client:
            await trio.sleep(9)
            assert len(messages(client)) < 120
            await trio.sleep(21)
        assert len(messages(client)) == 120


async def test_a_page_under_way_is_of_one_log(autojump_clock):
    async with open_core() as core:
        logs = [PartitionLog(PartitionKey(GLOBAL, "id1", 0), 120, core.memory) for _ in range(2)]
        reads = [core.reads.want(log, 100, str) for log in (*logs, logs[0])]
        assert reads[0] is not reads[1]
        assert reads[1].log is logs[1]


# Two instances, one of which hears of an election later than the other


@asynccontextmanager
async def two_instances() -> AsyncIterator[tuple[Core, Core]]:
    """Two on one Kafka. The second follows a chat of 120 messages, and from then on hears of nothing by itself."""
    async with open_core() as first, open_core() as second:
        second.kafka.topics = first.kafka.topics
        first.kafka.create(GLOBAL)
        second.audience.pin(GLOBAL)
        await wait_all_tasks_blocked()
        first.kafka.produce(GLOBAL, *[value(f"old {n}") for n in range(120)])
        second.kafka.catch_up(GLOBAL, 0)
        yield first, second


async def cursor_at_the_end(core: Core, *produced: str) -> str:
    """The cursor of a client of an instance that has had these messages, and all before them."""
    async with visiting(core, v1()) as client:
        core.kafka.produce(GLOBAL, *map(value, produced))
    assert messages(client) == list(produced)
    return cursor_of(client)


@pytest.mark.promise("p-epochs")
@pytest.mark.parametrize("written", [1, 5, 20, 50])  # the new log is shorter, shorter, equal, longer
async def test_a_cursor_of_an_instance_that_knew_of_the_election_first_waits_for_the_new_log(autojump_clock, written):
    async with two_instances() as (first, second):
        first.kafka.elect(GLOBAL, 100)
        cursor = await cursor_at_the_end(first, *(f"new {n}" for n in range(written)))
        async with visiting(second, resumed(cursor)) as client:
            await trio.sleep(1)  # as long as it takes the Tail to be told
            assert kinds(client) == []
            second.kafka.listener.position_lost(second.kafka.key(GLOBAL), 120, 100, LossCause.TRUNCATED, epoch=1)
            second.kafka.catch_up(GLOBAL, 100)
            await wait_all_tasks_blocked()
            first.kafka.produce(GLOBAL, value("later"))
            second.kafka.catch_up(GLOBAL, 100 + written)
        assert told(client, "hello")[0]["resume"] == "exact"
        assert (messages(client), told(client, "gap")) == (["later"], [])


async def test_a_page_that_goes_on_with_such_a_cursor_waits_too(autojump_clock):
    async with two_instances() as (first, second):
        first.kafka.elect(GLOBAL, 100)
        cursor = await cursor_at_the_end(first, *(f"new {n}" for n in range(50)))

        async def tell() -> None:
            await trio.sleep(1)
            second.kafka.listener.position_lost(second.kafka.key(GLOBAL), 120, 100, LossCause.TRUNCATED, epoch=1)
            second.kafka.catch_up(GLOBAL, 100)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell)
            page = await second.history.page(PageQuery(chat="global", cursor=parse(cursor)))
        assert (page.messages, page.gaps) == ([], [])


async def test_a_cursor_of_an_instance_that_knew_of_a_clean_election_first_waits_for_the_tail_alone(autojump_clock):
    async with two_instances() as (first, second):
        first.kafka.elect(GLOBAL)
        cursor = await cursor_at_the_end(first, "new")
        async with visiting(second, resumed(cursor)) as client:
            second.kafka.catch_up(GLOBAL, 120)
            await trio.sleep(0.05)
            first.kafka.produce(GLOBAL, value("later"))
            second.kafka.catch_up(GLOBAL, 121)
        assert told(client, "hello")[0]["resume"] == "exact"
        assert messages(client) == ["later"]


async def test_a_log_that_lost_its_end_and_is_not_told_of_is_read_in_the_end(autojump_clock):
    async with two_instances() as (first, second):
        first.kafka.elect(GLOBAL, 100)
        cursor = await cursor_at_the_end(first, *(f"new {n}" for n in range(5)))
        async with visiting(second, resumed(cursor)) as client:
            await until_hello(client)
        assert told(client, "hello")[0]["resume"] == "exact"
        assert messages(client) == [f"old {n}" for n in range(105, 120)]


@pytest.mark.parametrize("seconds", [0.5, 8])
async def test_a_cursor_ahead_of_a_tail_that_is_slow_or_stuck_is_greeted_in_time_and_gets_what_comes_after_it(autojump_clock, seconds):
    async with two_instances() as (first, second):
        cursor = await cursor_at_the_end(first, "had")
        first.kafka.produce(GLOBAL, hole=1)  # a transaction's marker, which the Tail finds when it looks at its position
        began = trio.current_time()
        async with visiting(second, resumed(cursor)) as client:
            await until_hello(client)
            assert trio.current_time() - began < 2.5
            await trio.sleep(seconds)
            second.kafka.catch_up(GLOBAL, 120)
            await trio.sleep(0.5)
            first.kafka.produce(GLOBAL, value("later"))
            second.kafka.catch_up(GLOBAL, 122)
        assert told(client, "hello")[0]["resume"] == "exact"
        assert (messages(client), told(client, "gap")) == (["later"], [])


async def test_who_has_not_begun_when_a_log_loses_its_end_twice_at_once_begins_in_the_last_one(autojump_clock):
    async with two_instances() as (first, second):
        first.kafka.elect(GLOBAL, 100)
        cursor = await cursor_at_the_end(first, *(f"new {n}" for n in range(5)))
        async with visiting(second, resumed(cursor)) as client:
            first.kafka.elect(GLOBAL, 90)
            first.kafka.produce(GLOBAL, value("newest"))
            for asked, end, epoch in ((120, 100, 1), (100, 90, 2)):
                second.kafka.listener.position_lost(second.kafka.key(GLOBAL), asked, end, LossCause.TRUNCATED, epoch=epoch)
            second.kafka.catch_up(GLOBAL, 90)
        assert [range_of(gap) for gap in told(client, "gap")] == [(105, 90, "truncated")]
        assert messages(client) == ["newest"]


@pytest.mark.promise("p-epochs")
async def test_a_cursor_ahead_of_a_tail_that_read_nothing_of_what_was_lost_is_told_of_it_all_the_same(autojump_clock):
    async with open_core() as first, open_core() as second:
        second.kafka.topics = first.kafka.topics
        first.kafka.create(GLOBAL)
        second.audience.pin(GLOBAL)
        await wait_all_tasks_blocked()
        first.kafka.produce(GLOBAL, *[value(f"old {n}") for n in range(50)])
        second.kafka.catch_up(GLOBAL, 0)
        cursor = await cursor_at_the_end(first, *(f"old {n}" for n in range(50, 120)))
        first.kafka.elect(GLOBAL, 100)
        first.kafka.produce(GLOBAL, *[value(f"new {n}") for n in range(50)])
        async with visiting(second, resumed(cursor)) as client:
            await trio.sleep(0.1)
            second.kafka.catch_up(GLOBAL, 50)
            await trio.sleep(0.5)
        assert told(client, "hello")[0]["resume"] == "future"
        assert [range_of(gap) for gap in told(client, "gap")] == [(120, 100, "truncated")]
        assert messages(client) == [f"new {n}" for n in range(50)]


class LateTail:
    """Tells an instance what happens in a Kafka that is another one's: in order, and when a test wants it, or some seconds later.

    Records that are lost before the report may have been read, or not.
    """

    SECONDS = 2.0

    def __init__(self, instance: Core, dice: Random) -> None:
        self._kafka = instance.kafka
        self._dice = dice
        self._untold: dict[int, deque[Untold]] = {}
        self._heads: dict[int, int] = {}  # up to where each partition was told

    def look(self, partition: int, asked: int) -> None:
        """Take note of what has just happened to a partition that ended at an offset: it was written to, or has lost its end."""
        log, untold = self._kafka.topics[GLOBAL].partitions[partition], self._untold.setdefault(partition, deque())
        if log.end < asked and self._dice.random() < 0.5:  # what is not told was not read, either
            head = self._heads.get(partition, 0)
            asked = min(head, log.end, *(one.head for one in untold))
            untold.clear()
            if asked < head:
                self._put_lost(partition, head, asked)
        if log.end < asked:
            self._put_lost(partition, asked, log.end)
        elif log.end > asked:
            key, batch = self._kafka.key(GLOBAL, partition), self._kafka.batch(GLOBAL, partition, asked, log.end)
            untold.append(Untold(trio.current_time(), log.end, partial(self._kafka.listener.append, key, [batch])))

    def tell(self, partition: int) -> None:
        """Tell what is next to be told of a partition, if there is anything."""
        if self._untold.get(partition):
            told = self._untold[partition].popleft()
            told.tell()
            self._heads[partition] = told.head

    def tell_all(self, *, seconds: float = 0.0) -> None:
        """Report everything that happened at least this many seconds ago."""
        for partition, untold in self._untold.items():
            while untold and untold[0].time <= trio.current_time() - seconds:
                self.tell(partition)

    def _put_lost(self, partition: int, asked: int, end: int) -> None:
        epoch = self._kafka.topics[GLOBAL].partitions[partition].epoch
        tell = partial(self._kafka.listener.position_lost, self._kafka.key(GLOBAL, partition), asked, end, LossCause.TRUNCATED, epoch=epoch)
        self._untold[partition].append(Untold(trio.current_time(), end, tell))


class Untold(NamedTuple):
    """What happened to a partition, where that ended then, and what tells it."""

    time: float
    head: int
    tell: Callable[[], None]


# Whatever happens


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_is_elected_each_client_knows_the_log_as_it_is(autojump_clock, seed):
    """Elections clean and unclean, clients that come and go, partitions: what a client has, less what it was told is lost, is the log."""
    dice = Random(seed)
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=2)
        cursor: str | None = None
        known: dict[tuple[int, int], str] = {}
        produced = 0

        def something_happens() -> None:
            nonlocal produced
            partition = dice.randrange(2)
            log = core.kafka.topics[GLOBAL].partitions[partition]
            what = dice.randrange(8)
            if what == 0:
                core.kafka.elect(GLOBAL, partition=partition)
            elif what == 1:
                core.kafka.elect(GLOBAL, max(0, log.end - dice.randrange(6)), partition)
            elif what < 7:
                values = [f"m{produced + n}" for n in range(dice.randrange(5))]
                produced += len(values)
                core.kafka.produce(GLOBAL, *map(value, values), partition=partition, hole=dice.choice([0, 0, 0, 1]) if values else 0)

        for _ in range(12):
            for _ in range(dice.randrange(5)):  # while nobody is there
                something_happens()
            begin = v1(start=EARLIEST) if cursor is None else resumed(cursor)
            async with visiting(core, begin) as client:
                for _ in range(dice.randrange(6)):
                    something_happens()
                    if dice.random() < 0.5:
                        await wait_all_tasks_blocked()
            take(known, client)
            cursor = ".".join(filter(None, [cursor, cursor_of(client)])) if dice.random() < 0.3 else cursor_of(client)
        async with visiting(core, resumed(cursor or "")) as client:
            pass
        take(known, client)
        assert known == records_of(core)


@pytest.mark.parametrize("seed", range(100))
async def test_whatever_an_instance_hears_late_each_client_knows_the_log_as_it_is(autojump_clock, seed):
    """As above, with a client that comes now to an instance that knows all at once, now to one that learns it in some seconds."""
    dice = Random(seed)
    async with open_core() as first, open_core() as second:
        second.kafka.topics, late = first.kafka.topics, LateTail(second, dice)
        first.kafka.create(GLOBAL, partitions=2)
        second.audience.pin(GLOBAL)
        await wait_all_tasks_blocked()
        cursor, known, produced = "", dict[tuple[int, int], str](), 0

        def something_happens() -> None:
            nonlocal produced
            partition = dice.randrange(2)
            log = first.kafka.topics[GLOBAL].partitions[partition]
            asked, what = log.end, dice.randrange(8)
            if what == 0:
                first.kafka.elect(GLOBAL, partition=partition)
            elif what == 1:
                first.kafka.elect(GLOBAL, max(0, log.end - dice.randrange(6)), partition)
            else:
                values = [f"m{produced + n}" for n in range(dice.randrange(1, 5))]
                produced += len(values)
                first.kafka.produce(GLOBAL, *map(value, values), partition=partition)
            if log.end != asked:
                late.look(partition, asked)
            if dice.random() < 0.2:
                late.tell(dice.randrange(2))
            late.tell_all(seconds=late.SECONDS)

        for visit in range(12):
            for _ in range(dice.randrange(5)):
                something_happens()
            begin = resumed(cursor) if cursor else v1(start=EARLIEST)
            async with visiting(dice.choice([first, second]) if visit else first, begin) as client:
                for _ in range(dice.randrange(6)):
                    something_happens()
                    await trio.sleep(dice.choice([0, 0, 0.3, 1]))
                if dice.random() < 0.3:
                    late.tell_all()
            take(known, client)
            cursor = ".".join(filter(None, [cursor, cursor_of(client).strip(".")]))
        late.tell_all()
        async with visiting(second, resumed(cursor)) as client:
            await trio.sleep(10)  # longer than a position may lie beyond the end
        take(known, client)
        assert known == records_of(first)


def records_of(core: Core) -> dict[tuple[int, int], str]:
    """(partition, offset) -> the text of the record there."""
    return {
        (partition, offset): text_of_value(record)
        for partition, log in core.kafka.topics[GLOBAL].partitions.items()
        for offset, record in log.records.items()
    }


def take(known: dict[tuple[int, int], str], client: FakeClient) -> None:
    """Take what a client was told: messages, and from where on others are there now."""
    for frame in client.deliveries:
        meta: Any = frame["meta"]
        if meta.get("type") == "gap":
            for place in [place for place in known if place[0] == meta["partition"] and place[1] >= meta["first_left"]]:
                del known[place]
        elif "id" in meta:
            assert (meta["partition"], meta["offset"]) not in known, f"{frame} comes twice"
            known[meta["partition"], meta["offset"]] = str(frame["text"])


def text_of_value(record: bytes | None) -> str:
    assert record is not None
    return str(json.loads(record)["text"])
