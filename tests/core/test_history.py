"""History pages: every message on one of them, in order, with cursors that continue exactly there."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_chat.chat.resume_cursor import cluster_mark, head_of_cursor, parse, text_of, topic_entry
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.audience.wanted_start import EARLIEST, LATEST, Since
from kafka_chat.delivery.history.query import PAGE_BYTES, Page, PageQuery
from kafka_chat.delivery.log.merge import SCAN_OFFSETS
from kafka_chat.delivery.ports import TopicFacts
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.errors import BrokerUnreachable, NotFound, RequestError
from tests.core.test_cancelled_everywhere import CancelAt
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core

ROOM = "kafka.chat.room"
LONG_AGO = 1_600_000_000_000


def texts(page: Page) -> list[str]:
    return [json.loads(message)["text"] for message in page.messages]


async def page_of(core: Core, cursor: str | None = None, **asked: Any) -> Page:
    return await core.history.page(PageQuery(chat="room", cursor=None if cursor is None else parse(cursor), **asked))


async def walk(core: Core, cursor: str | None = None, **asked: Any) -> list[Page]:
    """All pages from here on, in one direction."""
    pages: list[Page] = []
    while not pages or not pages[-1].end:
        pages.append(await page_of(core, cursor, **asked))
        cursor = pages[-1].prev if asked.get("backward") else pages[-1].next
        assert len(pages) < 500
    return pages


@pytest.mark.promise("p-page")
async def test_a_page_has_the_messages_of_all_partitions_by_time(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM, partitions=3)
        for number in range(9):
            core.kafka.produce(ROOM, value(f"m{number}"), partition=number * 2 % 3, time_ms=LONG_AGO + number)
        page = await page_of(core)
        assert texts(page) == [f"m{number}" for number in range(9)]
        assert page.end
        assert not page.gaps
        message = json.loads(page.messages[0])
        assert list(message) == ["sender", "text", "tag", "chat", "meta"]
        assert message["meta"]["time"] == LONG_AGO


@pytest.mark.promise("p-page-end", "p-page-limit")
async def test_pages_go_on_where_the_one_before_ended(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM, partitions=2)
        for number in range(25):
            core.kafka.produce(ROOM, value(f"m{number}"), partition=number % 2, time_ms=LONG_AGO + number)
        pages = await walk(core, limit=10)
        assert [texts(page) for page in pages] == [[f"m{n}" for n in range(a, b)] for a, b in ((0, 10), (10, 20), (20, 25))]
        core.kafka.produce(ROOM, value("new"))
        assert texts(await page_of(core, pages[-1].next)) == ["new"]
        assert texts(await page_of(core, pages[1].prev, backward=True)) == [f"m{n}" for n in range(10)]
        assert texts(await page_of(core, pages[1].next, backward=True, limit=10)) == [f"m{n}" for n in range(10, 20)]


@pytest.mark.promise("p-page-direction")
async def test_backward_pages_have_the_last_messages_oldest_first(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM, partitions=2)
        for number in range(25):
            core.kafka.produce(ROOM, value(f"m{number}"), partition=number % 2, time_ms=LONG_AGO + number)
        pages = await walk(core, limit=10, backward=True)
        assert [texts(page) for page in pages] == [[f"m{n}" for n in range(a, b)] for a, b in ((15, 25), (5, 15), (0, 5))]
        core.kafka.produce(ROOM, value("new"))
        assert texts(await page_of(core, pages[0].next)) == ["new"]


async def test_a_page_leads_on_to_a_live_stream_without_a_hole_and_nothing_twice(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM, partitions=2)
        for number in range(6):
            core.kafka.produce(ROOM, value(f"m{number}"), partition=number % 2, time_ms=LONG_AGO + number)
        page = await page_of(core, rewind=3)
        assert texts(page) == ["m3", "m4", "m5"]
        core.kafka.produce(ROOM, value("between"))
        client = FakeClient()
        async with core.connected(client, options=SessionOptions(format=Format.V1, cursor=parse(page.next), chats=("room",))):
            await trio.testing.wait_all_tasks_blocked()
            core.kafka.produce(ROOM, value("live"))
            await trio.testing.wait_all_tasks_blocked()
        assert [frame["text"] for frame in client.deliveries if "text" in frame] == ["between", "live"]


async def test_the_cursor_of_a_page_goes_on_there_for_who_subscribed_later(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, value("m0"), value("m1"), time_ms=LONG_AGO)
        topic_id = core.kafka.topics[ROOM].topic_id
        core.subscribed["ann", "room"] = SubscriptionChange(
            username="ann", chat="room", subscribed=True, topic_id=topic_id, starts={0: 2}, offset=3
        )
        page = await page_of(core, limit=1)
        client = FakeClient()
        async with core.connected(client, options=SessionOptions(format=Format.V1, cursor=parse(page.next))):
            await trio.testing.wait_all_tasks_blocked()
        assert [frame["text"] for frame in client.deliveries if "text" in frame] == ["m1"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, range(20)),
        ({"start": EARLIEST}, range(20)),
        ({"start": LATEST}, ()),
        ({"start": Since(LONG_AGO + 12)}, range(12, 20)),
        ({"until_ms": LONG_AGO + 5}, range(5)),
        ({"start": Since(LONG_AGO + 3), "until_ms": LONG_AGO + 8}, range(3, 8)),
        ({"start": Since(LONG_AGO + 8), "until_ms": LONG_AGO + 3}, ()),
        ({"rewind": 4}, range(16, 20)),
        ({"rewind": 400}, range(20)),
        ({"rewind": 4, "limit": 2}, range(16, 18)),
        ({"backward": True, "limit": 3}, range(17, 20)),
        ({"backward": True, "start": LATEST, "limit": 3}, range(17, 20)),
        ({"backward": True, "start": EARLIEST}, ()),
        ({"backward": True, "start": Since(LONG_AGO + 12), "limit": 3}, range(9, 12)),
        ({"backward": True, "until_ms": LONG_AGO + 5, "limit": 3}, range(2, 5)),
        ({"backward": True, "rewind": 4, "limit": 3}, range(13, 16)),
        ({"tags": frozenset({"even"})}, range(0, 20, 2)),
        ({"senders": frozenset({"s1"})}, range(1, 20, 3)),
        ({"rewind": 4, "tags": frozenset({"even"})}, range(12, 20, 2)),
        ({"backward": True, "tags": frozenset({"odd"}), "senders": frozenset({"s1"}), "limit": 2}, (13, 19)),
    ],
)
@pytest.mark.promise("p-page-beginning")
async def test_a_page_begins_and_ends_where_it_is_asked_to(asked: dict[str, Any], expected: range, autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM, partitions=3)
        for number in range(20):
            data = value(f"m{number}", sender=f"s{number % 3}", tag=("even", "odd")[number % 2])
            core.kafka.produce(ROOM, data, partition=number * 2 % 3, time_ms=LONG_AGO + number)
        assert texts(await page_of(core, **asked)) == [f"m{number}" for number in expected]


async def test_a_chat_without_a_topic_is_not_found(autojump_clock):
    async with open_core() as core:
        with pytest.raises(NotFound, match="room is not a chat") as caught:
            await page_of(core)
        assert caught.value.field == "chat"
        assert core.audience.topics == 0
        core.kafka.create(ROOM)
        assert texts(await page_of(core)) == []


@pytest.mark.promise("p-page-503")
async def test_a_chat_that_is_made_just_now_has_its_page(autojump_clock):
    async with open_core() as core:
        describe = core.kafka.describe

        async def made_meanwhile(topics: Collection[str]) -> Mapping[str, TopicFacts]:
            """The brokers have it already; the Tail was told a moment ago that they have not, and hears of it later."""
            if ROOM not in core.kafka.topics:
                core.kafka.requested.discard(ROOM)
                core.kafka.create(ROOM)
                core.kafka.requested.add(ROOM)
            return await describe(topics)

        core.kafka.describe = made_meanwhile  # type: ignore[method-assign]
        pages: list[Page] = []

        async def ask() -> None:
            pages.append(await page_of(core, start=EARLIEST))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.5)
            assert ROOM in core.kafka.topics
            assert not pages
            core.kafka.produce(ROOM, value("first"))
            core.kafka.round_trip_seconds = 0.2
            core.kafka._open(ROOM, created=False)
        assert [texts(page) for page in pages] == [["first"]]


async def test_while_no_broker_answers_the_answer_is_to_come_again(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        core.kafka.away = True
        began = trio.current_time()
        with pytest.raises(BrokerUnreachable):
            await page_of(core)
        assert trio.current_time() - began <= 5
        assert core.audience.sessions == core.audience.topics == 0


async def test_messages_that_are_gone_are_told(autojump_clock):
    async with open_core(memory_bytes=65_536) as core:
        core.kafka.create(ROOM)
        for number in range(3000):
            core.kafka.produce(ROOM, value(f"m{number}"))
        first = await page_of(core, limit=10)
        core.kafka.trim(ROOM, 2000)
        page = await page_of(core, first.next, limit=10)
        assert texts(page) == [f"m{number}" for number in range(2000, 2010)]
        (gap,) = page.gaps
        assert (gap.chat, gap.partition, gap.first_lost, gap.first_left, gap.cause) == ("room", 0, 10, 2000, "retention")
        assert not page.closed
        assert texts(await page_of(core, page.next, limit=2)) == ["m2010", "m2011"]
        back = await page_of(core, page.prev, limit=2, backward=True)
        assert (texts(back), back.end) == ([], True)


@pytest.mark.parametrize("new", [2, 20])
async def test_a_topic_made_anew_begins_at_its_start_and_that_is_told(new: int, autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        for number in range(10):
            core.kafka.produce(ROOM, value(f"old{number}"))
        cursor = (await page_of(core)).next
        core.kafka.delete(ROOM)
        core.kafka.create(ROOM)
        for number in range(new):
            core.kafka.produce(ROOM, value(f"new{number}"))
        page = await page_of(core, cursor)
        assert texts(page) == [f"new{number}" for number in range(new)]
        (gap,) = page.gaps
        assert (gap.first_lost, gap.first_left, gap.cause) == (10, 0, "recreated")


async def test_a_position_beyond_the_end_is_told_after_five_seconds(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, value("m0"), value("m1"))
        beyond = text_of(head_of_cursor(cluster_mark("here"), 0) + topic_entry(ROOM, core.kafka.topics[ROOM].topic_id, [7]))
        began = trio.current_time()
        page = await page_of(core, beyond)
        assert 5 <= trio.current_time() - began < 7
        assert texts(page) == []
        (gap,) = page.gaps
        assert (gap.first_lost, gap.first_left, gap.cause) == (7, 2, "truncated")


@pytest.mark.promise("p-page-cluster")
@pytest.mark.parametrize("backward", [False, True])
async def test_a_cursor_of_another_cluster_is_refused_for_its_offsets_are_those_of_other_messages(autojump_clock, backward):
    async with open_core() as core:
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, value("m0"), value("m1"))
        other = text_of(head_of_cursor(cluster_mark("elsewhere"), 0) + topic_entry(ROOM, core.kafka.topics[ROOM].topic_id, [1]))
        later = text_of(b"\x09what comes later")
        for cursor, why in ((other, "from another Kafka cluster"), (later, "from a later version")):
            with pytest.raises(RequestError, match=why) as caught:
                await page_of(core, cursor, backward=backward)
            assert caught.value.field == "cursor"


async def test_an_added_partition_is_on_the_next_page(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, value("m0"))
        cursor = text_of(head_of_cursor(cluster_mark("here"), 0) + topic_entry(ROOM, core.kafka.topics[ROOM].topic_id, [1]))
        core.kafka.topics[ROOM].partitions[1] = type(core.kafka.topics[ROOM].partitions[0])()
        core.kafka.produce(ROOM, value("added"), partition=1)
        assert texts(await page_of(core, cursor)) == ["added"]


@pytest.mark.promise("p-page-ends")
async def test_a_filter_that_hardly_anything_passes_makes_short_pages_that_go_on(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        bulk = [value("bulk", tag="bulk")] * 1000
        for _ in range(SCAN_OFFSETS // 1000 + 20):
            core.kafka.produce(ROOM, *bulk, tail=False)
        core.kafka.produce(ROOM, value("rare", tag="rare"), tail=False)
        forward = await walk(core, tags=frozenset({"rare"}))
        assert [texts(page) for page in forward] == [[], ["rare"]]
        assert [page.end for page in forward] == [False, True]
        backward = await walk(core, tags=frozenset({"rare"}), backward=True, limit=1)
        assert [text for page in backward for text in texts(page)] == ["rare"]


@pytest.mark.promise("p-page-ends")
async def test_a_page_ends_at_a_mebibyte_and_the_next_one_goes_on(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        for number in range(30):
            core.kafka.produce(ROOM, value(f"m{number} " + "x" * 100_000))
        pages = await walk(core, limit=1000)
        assert [text.split()[0] for page in pages for text in texts(page)] == [f"m{number}" for number in range(30)]
        assert len(pages) == 3
        for page in pages[:-1]:
            assert PAGE_BYTES <= sum(map(len, page.messages)) < PAGE_BYTES + 110_000


async def test_nothing_is_left_of_a_reader(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, value("m0"))
        await page_of(core)
        with trio.move_on_after(3):
            await page_of(core, start=LATEST, wait_seconds=30)
        assert core.audience.sessions == core.audience.topics == 0
        assert not core.kafka.requested


@pytest.mark.parametrize("backward", [False, True])
async def test_a_request_cancelled_at_any_checkpoint_leaves_nothing(autojump_clock, *, backward: bool):
    steps, completed = 0, False
    while not completed:
        steps += 1
        cancel = CancelAt(steps)
        async with open_core(memory_bytes=2000) as core:
            core.kafka.create(ROOM, partitions=3)
            for number in range(30):
                core.kafka.produce(ROOM, value(f"m{number}"), partition=number % 3, time_ms=LONG_AGO + number)
            before = trio.lowlevel.current_statistics().tasks_living
            cancel.task = trio.lowlevel.current_task()
            trio.lowlevel.add_instrument(cancel)
            try:
                with cancel.scope:
                    page = await page_of(core, rewind=20, backward=backward, limit=7)
                    assert texts(page) == [f"m{number}" for number in (range(3, 10) if backward else range(10, 17))]
                    await page_of(core, start=LATEST, wait_seconds=1)
            finally:
                trio.lowlevel.remove_instrument(cancel)
            completed = not cancel.scope.cancelled_caught
            await trio.testing.wait_all_tasks_blocked()
            assert (core.audience.sessions, core.audience.partitions, core.kafka.requested) == (0, 0, set())
            assert core.memory.held_bytes == 0
            assert trio.lowlevel.current_statistics().tasks_living == before
    assert steps > 10, "the scenario has hardly a checkpoint: it proves nothing"


# Waiting for news


async def test_an_empty_page_may_wait_for_news(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM, partitions=2)
        core.kafka.produce(ROOM, value("m0"))
        cursor = (await page_of(core)).next
        pages: list[Page] = []

        async def ask() -> None:
            pages.append(await page_of(core, cursor, wait_seconds=30, tags=frozenset({"blue"})))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(10)
            core.kafka.produce(ROOM, value("not for it", tag="red"), partition=1)
            await trio.sleep(10)
            assert not pages
            core.kafka.produce(ROOM, value("news", tag="blue"))
        assert [texts(page) for page in pages] == [["news"]]
        core.kafka.produce(ROOM, value("more", tag="blue"))
        assert texts(await page_of(core, pages[0].next)) == ["more"]


async def test_an_empty_page_is_there_at_once_where_nobody_asks_to_wait(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        began = trio.current_time()
        assert (await core.history.page(PageQuery(chat="room"))).messages == []
        assert trio.current_time() - began < 0.5


async def test_an_empty_page_that_has_waited_long_enough_is_empty(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        began = trio.current_time()
        page = await page_of(core, wait_seconds=30)
        assert trio.current_time() - began == pytest.approx(30, abs=1)
        assert (page.messages, page.end, page.closed) == ([], True, False)


@pytest.mark.parametrize("asked", [{"until_ms": LONG_AGO}, {"backward": True}, {"start": EARLIEST, "wait_seconds": 0}])
async def test_a_page_that_no_news_can_be_on_waits_for_none(asked: dict[str, Any], autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        began = trio.current_time()
        assert texts(await page_of(core, **{"wait_seconds": 30, **asked})) == []
        assert trio.current_time() - began < 5


async def test_who_waits_is_answered_when_the_service_restarts(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        history = core.history
        async with trio.open_nursery() as nursery:
            nursery.start_soon(history.page, PageQuery(chat="room", wait_seconds=60))
            await trio.sleep(5)
            history.drain()
            began = trio.current_time()
        assert trio.current_time() == began
        await history.page(PageQuery(chat="room", wait_seconds=60))
        assert trio.current_time() - began < 5


# What stays the same


async def closed(core: Core, cursor: str | None = None, **asked: Any) -> bool:
    return (await page_of(core, cursor, **asked)).closed


@pytest.mark.promise("p-page-stays")
async def test_a_full_page_after_a_whole_cursor_is_closed_and_no_other(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM, partitions=2)
        for number in range(20):
            core.kafka.produce(ROOM, value(f"m{number}"), partition=number % 2, time_ms=LONG_AGO + number)
        first = await page_of(core, limit=5)
        assert not first.closed, "the earliest message is another one later on"
        second = await page_of(core, first.next, limit=5)
        assert second.closed
        assert not second.compacted
        assert await closed(core, first.next, limit=13)
        assert not await closed(core, first.next, limit=14), "a partition is at its end: something older may come there"
        assert not await closed(core, first.next, limit=50)
        assert not await closed(core, second.prev, limit=5, backward=True)
        assert not await closed(core, limit=5, start=Since(LONG_AGO + 2)), "a late record may be the first of that time"
        assert not await closed(core, limit=5, rewind=7)
        assert not await closed(core, first.next, limit=5, until_ms=LONG_AGO + 15)
        message_id = json.loads(first.messages[-1])["meta"]["id"]
        assert not await closed(core, message_id, limit=5), "the other partition begins at what is left"
        assert await closed(core, f"{first.next}.{message_id}", limit=5)
        core.kafka.compacting.add(ROOM)
        compacted = await page_of(core, first.next, limit=5)
        assert (compacted.closed, compacted.compacted) == (True, True)


async def test_a_page_of_a_cursor_of_another_topic_or_with_a_new_partition_or_with_a_gap_is_not_closed(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, *[value(f"m{number}") for number in range(20)])
        cursor = (await page_of(core, limit=5)).next
        assert await closed(core, cursor, limit=5)
        core.kafka.topics[ROOM].partitions[1] = type(core.kafka.topics[ROOM].partitions[0])()
        core.kafka.produce(ROOM, *[value(f"n{number}") for number in range(20)], partition=1)
        assert not await closed(core, cursor, limit=5), "it begins at 0 there"
        core.kafka.trim(ROOM, 10)
        both = (await page_of(core, limit=5)).next
        assert await closed(core, both, limit=2)
        core.kafka.trim(ROOM, 18)
        core.kafka.trim(ROOM, 18, partition=1)
        assert not await closed(core, both, limit=1), "some of it is gone"
        core.kafka.delete(ROOM)
        core.kafka.create(ROOM, partitions=2)
        for partition in (0, 1):
            core.kafka.produce(ROOM, *[value(f"m{number}") for number in range(20)], partition=partition)
        assert not await closed(core, both, limit=2), "the topic is another one"


@settings(max_examples=60, deadline=None)
@given(
    before=st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 30)), max_size=40),
    after=st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 30)), min_size=1, max_size=20),
    first=st.integers(1, 10),
    limit=st.integers(1, 10),
    tags=st.sampled_from([None, frozenset({"a"})]),
)
@pytest.mark.promise("p-page-stays")
async def test_a_closed_page_is_the_same_whatever_comes_later(before, after, first, limit, tags):
    async with open_core() as core:
        core.kafka.create(ROOM, partitions=3)

        def produce(records: list[tuple[int, int]]) -> None:
            for number, (partition, time_ms) in enumerate(records):
                core.kafka.produce(ROOM, value(f"m{number}", tag="ab"[number % 2]), partition=partition, time_ms=time_ms)

        produce(before)
        cursor = (await page_of(core, limit=first)).next
        page = await page_of(core, cursor, limit=limit, tags=tags)
        produce(after)
        if page.closed:
            assert await page_of(core, cursor, limit=limit, tags=tags) == page


# All of it, by chance

RECORDS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 2), st.sampled_from(["a", "b", None])), max_size=60)


@settings(max_examples=60, deadline=None)
@given(
    records=RECORDS,
    limit=st.integers(1, 25),
    backward=st.booleans(),
    tags=st.sampled_from([None, frozenset({"a"})]),
    in_memory=st.booleans(),
)
@pytest.mark.promise("p-page")
async def test_every_message_is_on_one_page_and_each_partition_in_order(
    *, records: list[tuple[int, int, int, str | None]], limit: int, backward: bool, tags: frozenset[str] | None, in_memory: bool
):
    async with open_core(memory_bytes=1 << 20 if in_memory else 2000) as core:
        core.kafka.create(ROOM, partitions=3)
        core.kafka.page_bytes = 300
        expected: dict[int, list[str]] = {0: [], 1: [], 2: []}
        for number, (partition, time_ms, hole, tag) in enumerate(records):
            core.kafka.produce(ROOM, value(f"m{number}", tag=tag), partition=partition, time_ms=LONG_AGO + time_ms, hole=hole)
            if tags is None or tag in (None, "a"):
                expected[partition].append(f"m{number}")
        with trio.fail_after(30):
            pages = await walk(core, limit=limit, backward=backward, tags=tags)
        found = [json.loads(message) for page in (reversed(pages) if backward else pages) for message in page.messages]
        by_partition: dict[int, list[str]] = {0: [], 1: [], 2: []}
        for message in found:
            by_partition[message["meta"]["partition"]].append(message["text"])
        assert by_partition == expected
        assert all(len(page.messages) <= limit for page in pages)
        assert all(len(page.messages) == limit for page in pages[:-1])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 10), st.integers(1, 10))
@pytest.mark.promise("p-page-links")
async def test_whoever_goes_there_and_back_sees_the_same(partitions: list[int], there: int, back: int):
    async with open_core() as core:
        core.kafka.create(ROOM, partitions=3)
        for number, partition in enumerate(partitions):
            core.kafka.produce(ROOM, value(f"m{number}"), partition=partition, time_ms=LONG_AGO + number)
        everything = [f"m{number}" for number in range(len(partitions))]
        forward = await walk(core, limit=there)
        assert [text for page in forward for text in texts(page)] == everything
        backward = await walk(core, forward[-1].next, limit=back, backward=True)
        assert [text for page in reversed(backward) for text in texts(page)] == everything
        again = await walk(core, backward[-1].prev, limit=there)
        assert [text for page in again for text in texts(page)] == everything
