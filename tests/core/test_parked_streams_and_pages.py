"""Event streams and long polls wait parked at the heads of logs, and get what comes; nothing is lost or comes twice."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.resume_cursor import parse
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.audience.wanted_start import LATEST
from kafka_chat.delivery.history.query import Page, PageQuery
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core
from tests.support.loop_steps import loop_steps

GLOBAL = "kafka.chat.global"
ROOM = "kafka.chat.room"
OF_THE_TEST = ("<test",)
BLUE = frozenset({"blue"})


def events_of(client: FakeClient) -> list[tuple[str, dict[str, Any]]]:
    """The messages of an event stream: id and data."""
    found = []
    for event in client.got.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.split("\n") if line)
        if fields and "event" not in fields:
            found.append((fields.get("id", ""), json.loads(fields["data"])))
    return found


def texts(client: FakeClient) -> list[str]:
    return [data["text"] for _, data in events_of(client)]


# Event streams


async def test_event_streams_that_have_everything_are_not_woken_by_a_message(autojump_clock):
    async with open_core() as core, AsyncExitStack() as stack:
        core.kafka.create(GLOBAL, partitions=120)
        clients = [FakeClient() for _ in range(60)]
        for client in clients:
            await stack.enter_async_context(core.connected(client, options=SessionOptions(format=Format.EVENTS)))
        await wait_all_tasks_blocked()
        with loop_steps() as steps:
            core.kafka.produce(GLOBAL, value("m"), partition=77)
            await wait_all_tasks_blocked()
        steps.check(ignore=OF_THE_TEST)
        assert steps.steps < len(clients), "each of them took a step of its own"
        assert {tuple(texts(client)) for client in clients} == {("m",)}
        told, session = parse(_id(clients[0])), next(iter(core.audience._by_user["ann"]))
        expected = core.audience.cursor(session, cluster=told.cluster, subscriptions=told.subscriptions)
        assert _id(clients[0]).split(".")[0] == expected


def _id(client: FakeClient) -> str:
    return events_of(client)[-1][0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tags", [None, BLUE])
@pytest.mark.promise("p-event-id")
async def test_whatever_happens_each_id_resumes_right_after_its_event(autojump_clock, seed, tags):
    """Partitions, stalls, a chat that comes and goes, a partition that is added: after each event a client comes back with its id."""
    dice = Random(seed)
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=3)
        core.kafka.create(ROOM)
        client, subscribed, produced = FakeClient(), False, 0
        visible: list[tuple[tuple[str, int], str]] = []  # in the order in which they were produced
        async with core.connected(client, options=SessionOptions(format=Format.EVENTS, tags=tags)):
            await wait_all_tasks_blocked()
            for step in range(40):
                what = dice.randrange(10)
                if what < 6:
                    topic = ROOM if subscribed and dice.random() < 0.3 else GLOBAL
                    partition = dice.randrange(len(core.kafka.topics[topic].partitions))
                    for _ in range(dice.randrange(1, 4)):
                        tag, produced = dice.choice([None, "blue", "red"]), produced + 1
                        core.kafka.produce(topic, value(f"m{produced}", tag=tag), partition=partition, hole=dice.randrange(2))
                        if tags is None or tag != "red":
                            visible.append(((topic, partition), f"m{produced}"))
                elif what == 6:
                    client.make_room(dice.choice([0, 50, float("inf")]))
                elif what == 7 and not subscribed:
                    subscribed = True
                    topic_id, end = core.kafka.topics[ROOM].topic_id, core.kafka.topics[ROOM].partitions[0].end
                    change = SubscriptionChange(
                        username="ann", chat="room", subscribed=True, topic_id=topic_id, starts={0: end}, offset=step
                    )
                    core.subscribed["ann", "room"] = change
                    await core.audience.user_changed(change)
                    await wait_all_tasks_blocked()  # the Tail has opened it before it appends to it
                elif what == 8 and len(core.kafka.topics[GLOBAL].partitions) < 6:
                    topic_of = core.kafka.topics[GLOBAL]
                    number = len(topic_of.partitions)
                    topic_of.partitions[number] = type(topic_of.partitions[0])()
                    core.audience.followed.topic_opened(GLOBAL, topic_of.topic_id, {number: 0}, created=True)
                if dice.random() < 0.7:
                    await wait_all_tasks_blocked()
            client.make_room(float("inf"))
            await wait_all_tasks_blocked()
        assert sorted(texts(client)) == sorted(text for _, text in visible)
        assert len(visible) > 20
        had: set[str] = set()
        for name, data in events_of(client):
            had.add(data["text"])
            if dice.random() < 0.5:
                continue
            again = FakeClient()
            async with core.connected(again, options=SessionOptions(format=Format.V1, tags=tags, cursor=parse(name))):
                await wait_all_tasks_blocked()
            resumed = [str(frame["text"]) for frame in again.deliveries if "text" in frame]
            assert sorted(resumed) == sorted(text for _, text in visible if text not in had), (name, data)


@pytest.mark.promise("p-event-id")
async def test_an_id_is_a_whole_cursor_with_the_message_after_a_dot(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=2)
        client = FakeClient()
        async with core.connected(client, options=SessionOptions(format=Format.EVENTS)):
            await wait_all_tasks_blocked()
            for number in range(3):
                core.kafka.produce(GLOBAL, value(f"m{number}"), partition=number % 2)
                await wait_all_tasks_blocked()
    for number, (name, data) in enumerate(events_of(client)):
        cursor, _, message_id = name.partition(".")
        assert message_id == data["meta"]["id"]
        entry = parse(cursor).entry(GLOBAL)
        assert entry is not None
        assert entry.offsets == {0: (number + 2) // 2, 1: (number + 1) // 2}


# Long polls


def waiting(core: Core, **asked: Any) -> PageQuery:
    return PageQuery(chat="room", **{"start": LATEST, "wait_seconds": 60.0, **asked})


@pytest.mark.parametrize("tag", ["red", "blue"])
async def test_long_polls_are_woken_by_what_they_show_only_and_merge_it_once(autojump_clock, tag):
    async with open_core() as core, trio.open_nursery() as nursery:
        core.kafka.create(ROOM, partitions=20)
        history, pages = core.history, []

        async def poll() -> None:
            pages.append(await history.page(waiting(core, tags=BLUE)))

        for _ in range(60):
            nursery.start_soon(poll)
        await wait_all_tasks_blocked()
        with loop_steps() as steps:
            core.kafka.produce(ROOM, value("m", tag=tag), partition=7)
            await wait_all_tasks_blocked()
        steps.check(ignore=OF_THE_TEST)
        if tag == "red":
            assert steps.steps < 50, "those that wait took steps for what they do not show"
            assert not pages
            nursery.cancel_scope.cancel()
        else:
            assert steps.steps < 60 * 20, "each of them merged"
            assert len(pages) == 60
            assert {page.next for page in pages} == {pages[0].next}
            assert [json.loads(message)["text"] for message in pages[-1].messages] == ["m"]


async def chained(core: Core, pages: list[Page], **asked: Any) -> None:
    """Poll page after page."""
    history, cursor = core.history, None
    while True:
        page = await history.page(waiting(core, cursor=None if cursor is None else parse(cursor), **asked))
        cursor = page.next
        pages.append(page)


@pytest.mark.parametrize("seed", range(3))
async def test_a_chain_of_long_polls_has_everything_once(autojump_clock, seed):
    dice = Random(seed)
    async with open_core() as core, trio.open_nursery() as nursery:
        core.kafka.create(ROOM, partitions=2)
        chains: list[tuple[dict[str, Any], list[Page]]] = [
            ({"limit": limit, "tags": tags}, []) for limit in (1, 3, 100) for tags in (None, BLUE, BLUE)
        ]
        for asked, pages in chains:
            nursery.start_soon(lambda asked=asked, pages=pages: chained(core, pages, **asked))
        await wait_all_tasks_blocked()
        produced: list[tuple[str, str]] = []
        for _ in range(30):
            topic = core.kafka.topics[ROOM]
            if dice.random() < 0.1 and len(topic.partitions) < 4:
                number = len(topic.partitions)
                topic.partitions[number] = type(topic.partitions[0])()
                core.audience.followed.topic_opened(ROOM, topic.topic_id, {number: 0}, created=True)
            for _ in range(dice.randrange(1, 4)):
                tag = dice.choice(["blue", "red"])
                produced.append((f"m{len(produced)}", tag))
                core.kafka.produce(
                    ROOM, value(produced[-1][0], tag=tag), partition=dice.randrange(len(topic.partitions)), hole=dice.randrange(2)
                )
            if dice.random() < 0.5:
                await wait_all_tasks_blocked()
            elif dice.random() < 0.2:
                await trio.sleep(61)  # they come to their end with nothing, and begin again
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for asked, pages in chains:
        found = [json.loads(message)["text"] for page in pages for message in page.messages]
        assert sorted(found) == sorted(text for text, tag in produced if asked["tags"] is None or tag == "blue"), asked
        assert all(len(page.messages) <= asked["limit"] for page in pages)


@pytest.mark.parametrize("what", ["retention", "recreated"])
async def test_a_long_poll_tells_at_once_what_is_lost_while_it_waits(autojump_clock, what):
    async with open_core() as core, trio.open_nursery() as nursery:
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, value("old"))
        pages: list[Page] = []
        nursery.start_soon(chained, core, pages)
        await wait_all_tasks_blocked()
        if what == "retention":
            core.kafka.topics[ROOM].partitions[0].end = 5
            core.audience.followed.position_lost(core.kafka.key(ROOM), 1, 5, LossCause.RETENTION)
        else:
            core.kafka.delete(ROOM, LossCause.RECREATED)
            core.kafka.create(ROOM)
        await wait_all_tasks_blocked()
        core.kafka.produce(ROOM, value("new"))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    gaps = [gap for page in pages for gap in page.gaps]
    assert gaps
    assert {(gap.first_lost, gap.first_left, gap.cause) for gap in gaps} == {(1, 5 if what == "retention" else 0, LossCause(what))}
    assert [json.loads(message)["text"] for page in pages for message in page.messages] == ["new"]


async def test_an_id_after_a_told_gap_lies_where_the_gap_leads_also_while_a_walk_is_under_way(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=2)
        await wait_all_tasks_blocked()
        for number in range(11):
            core.kafka.produce(GLOBAL, value(f"old {number}"), partition=0)
        await wait_all_tasks_blocked()
        client = FakeClient()
        async with core.connected(client, options=SessionOptions(format=Format.EVENTS)):
            core.kafka.produce(GLOBAL, value("seen"), partition=0)
            await wait_all_tasks_blocked()
            partition = core.kafka.topics[GLOBAL].partitions[0]
            partition.end = 5
            for lost in [offset for offset in partition.records if offset >= 5]:
                del partition.records[lost]
            core.audience.followed.position_lost(core.kafka.key(GLOBAL, 0), 12, 5, LossCause.TRUNCATED)
            for _ in core.audience.followed.walks._queue[0]:
                pass
            core.audience.followed.walks._queue.popleft()
            core.audience.followed.topic_opened(GLOBAL, core.kafka.topics[GLOBAL].topic_id, {}, created=True)  # its walk is to come
            held = core.audience.followed.walks._queue.popleft()
            core.kafka.produce(GLOBAL, value("other"), partition=1)
            await wait_all_tasks_blocked()
            entry = parse(_id(client)).entry(GLOBAL)
            assert entry is not None
            assert entry.offsets[0] == 5
            core.audience.followed.walks._queue.append(held)
            core.audience.followed.walks._more.note()
            await wait_all_tasks_blocked()
