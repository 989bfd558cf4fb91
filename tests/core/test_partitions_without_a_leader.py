"""A partition without a leader when a client resumes begins where the cursor says, however late it is opened."""

from __future__ import annotations

import time
from array import array

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.chat.resume_cursor import (
    NO_EPOCH,
    TopicOffsets,
    entry_again,
    head_of_cursor,
    identity_of,
    parse,
    text_of,
    topic_entry,
)
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.audience.wanted_start import EARLIEST, LATEST, AtOffsets, Resumed, Rewind, Since, Start, since_named
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core

GLOBAL, ROOM = "kafka.chat.global", "kafka.chat.room"


@pytest.mark.parametrize("late", [0, 1])
async def test_it_begins_where_the_cursor_says_and_the_next_cursor_says_so_too(autojump_clock: MockClock, late: int) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=2)
        for number in range(5):
            core.kafka.produce(GLOBAL, value(f"old {number}"), partition=late)
        topic_id = core.kafka.topics[GLOBAL].topic_id
        core.audience.pin(GLOBAL)
        await wait_all_tasks_blocked()
        core.audience.followed[GLOBAL].logs.pop(late)  # as the Tail opens a topic of which one partition has no leader
        core.audience.followed[GLOBAL].changed()
        before = text_of(head_of_cursor(None, 0) + topic_entry(GLOBAL, topic_id, [5 * (late == 0), 5 * (late == 1)]))
        client = FakeClient()
        async with core.connected(client, options=SessionOptions(format=Format.V1, cursor=parse(before))):
            await wait_all_tasks_blocked()
            hello = client.deliveries[0]["meta"]
            entry = parse(hello["cursor"]).entry(GLOBAL)
            assert entry is not None
            assert entry.offsets == {late: 5, 1 - late: 0}
            core.audience.followed.topic_opened(GLOBAL, topic_id, {late: 5}, created=False)
            await trio.sleep(10)
            assert [said["text"] for said in client.deliveries if "text" in said] == []
            core.kafka.produce(GLOBAL, value("new"), partition=late)
            await trio.sleep(1)
            assert [said["text"] for said in client.deliveries if "text" in said] == ["new"]


@pytest.mark.promise("p-latest", "p-exact", "p-no-leader-yet")
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("late", [0, 1])
async def test_who_began_without_its_place_and_comes_back_gets_what_came_meanwhile(
    autojump_clock: MockClock, late: int, *, again: bool
) -> None:
    now_ms = time.time_ns() // 1_000_000
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=2)
        core.kafka.produce(GLOBAL, value("old"), partition=late, time_ms=now_ms - 60_000)
        core.audience.pin(GLOBAL)
        await wait_all_tasks_blocked()
        core.audience.followed[GLOBAL].logs.pop(late)
        core.audience.followed[GLOBAL].changed()
        cursor = await cursor_of(core, None)
        if again:  # it comes back while there is no leader, and goes again
            cursor = await cursor_of(core, cursor)
        core.kafka.produce(GLOBAL, value("meanwhile"), partition=late, time_ms=now_ms + 10, tail=False)
        core.audience.followed.topic_opened(GLOBAL, core.kafka.topics[GLOBAL].topic_id, {late: 2}, created=False)
        client = FakeClient()
        async with core.connected(client, options=SessionOptions(format=Format.V1, cursor=parse(cursor))):
            await trio.sleep(10)
        assert [said["text"] for said in client.deliveries if "text" in said] == ["meanwhile"]


async def cursor_of(core: Core, cursor: str | None) -> str:
    """The cursor of a client that is there for a moment."""
    client = FakeClient()
    async with core.connected(client, options=SessionOptions(format=Format.V1, cursor=None if cursor is None else parse(cursor))):
        await wait_all_tasks_blocked()
    told: str = [said["meta"]["cursor"] for said in client.deliveries if "cursor" in said["meta"]][-1]
    return told


@pytest.mark.parametrize(
    ("start", "seconds"),
    [
        (LATEST, 90),
        (Rewind(5), 90),
        (Since(50_999), 50),
        (EARLIEST, 0),
        (AtOffsets("id", {0: 5}), NO_EPOCH),
        (Resumed(TopicOffsets(identity_of("id"), array("q", [0]), array("i", [71]), whole=True), LATEST), 70),
        (Resumed(TopicOffsets(identity_of("id"), array("q", [0]), array("i", [0]), whole=True), LATEST), 90),
        (Resumed(TopicOffsets(identity_of("other"), array("q", [0]), array("i", [71]), whole=True), LATEST), 90),
        (None, NO_EPOCH),
    ],
)
def test_without_an_offset_a_cursor_says_since_when_messages_are_due(start: Start | None, seconds: int) -> None:
    assert since_named(start, PartitionKey(GLOBAL, "id", 0), 100_000) == seconds


def test_a_time_comes_back_from_a_cursor_and_from_one_that_repeats_it() -> None:
    entry = parse(text_of(head_of_cursor(None, 0) + topic_entry(GLOBAL, "id", [None, None, 7], [1_796_000_000, NO_EPOCH, 3]))).entry(GLOBAL)
    assert entry is not None
    again = parse(text_of(head_of_cursor(None, 0) + entry_again(GLOBAL, entry))).entry(GLOBAL)
    for one in (entry, again):
        assert one is not None
        assert [one.since_ms(partition) for partition in range(4)] == [1_796_000_000_000, None, None, None]
        assert [one.next(partition) for partition in range(3)] == [None, None, 7]


async def test_a_rewind_goes_on_where_a_chat_is_left_before_a_broker_has_told_of_it(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("before"))
        await trio.sleep(5)
        core.kafka.away = True
        core.subscribed["ann", "room"] = SubscriptionChange(username="ann", chat="room", subscribed=True, starts={}, offset=1)
        client = FakeClient()
        session = core.requested(SessionOptions(format=Format.V1, rewind=5))
        with core.audience.joined(session, known=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run, client, client)
                await wait_all_tasks_blocked()
                del core.subscribed["ann", "room"]
                await core.audience.user_changed(SubscriptionChange(username="ann", chat="room", subscribed=False, starts={}, offset=2))
                core.kafka.back()
                await trio.sleep(100)
                assert [said.get("text") or said["meta"]["type"] for said in client.deliveries] == [
                    "hello",
                    "unsubscribed",
                    "before",
                    "live",
                ]
                nursery.cancel_scope.cancel()


async def test_a_session_that_comes_between_a_change_and_its_walk_is_told_once(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.create(ROOM)
        await trio.sleep(1)
        topic_id = core.kafka.topics[ROOM].topic_id
        change = SubscriptionChange(username="ann", chat="room", subscribed=True, topic_id=topic_id, starts={0: 0}, offset=3)
        core.subscribed["ann", "room"] = change  # read, and not told yet
        client = FakeClient()
        async with core.connected(client, options=SessionOptions(format=Format.V1)):
            await wait_all_tasks_blocked()
            await core.audience.user_changed(change)
            await trio.sleep(1)
            assert client.deliveries[0]["meta"]["chats"] == ["global", "room"]
            assert "subscribed" not in [said["meta"]["type"] for said in client.deliveries if "text" not in said]
