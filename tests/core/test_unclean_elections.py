"""After an unclean election every message is delivered or told as lost: live, on resume, in history, whatever the new log's length."""

from __future__ import annotations

import json
from random import Random
from typing import Any

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
from tests.support.events_client import EventsParser
from tests.support.fakes import Core, FakeClient, open_core, value
from tests.support.first_cursors import first_id

GLOBAL = "kafka.chat.global"


def range_of(gap: dict[str, Any]) -> tuple[int, int, str]:
    return gap["first_lost"], gap["first_left"], gap["cause"]


def messages(client: FakeClient) -> list[str]:
    return [kind for kind in kinds(client) if not kind.startswith("[")]


async def had(core: Core, count: int, **options: Any) -> str:
    """The cursor of a client that has had so many messages, with ids in it."""
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
        await rewrite_unseen(core, written=20)
        async with visiting(core, v1(start=EARLIEST)) as client:
            await trio.sleep(30)
        assert len(messages(client)) == 120


async def test_a_page_under_way_is_of_one_log(autojump_clock):
    async with open_core() as core:
        logs = [PartitionLog(PartitionKey(GLOBAL, "id1", 0), 120, core.memory) for _ in range(2)]
        reads = [core.reads.want(log, 100, str) for log in (*logs, logs[0])]
        assert reads[0] is not reads[1]
        assert reads[1].log is logs[1]


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
        there = {
            (partition, offset): text_of_value(record)
            for partition, log in core.kafka.topics[GLOBAL].partitions.items()
            for offset, record in log.records.items()
        }
        assert known == there


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
