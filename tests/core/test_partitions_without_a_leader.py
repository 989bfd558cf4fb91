"""A partition without a leader when a client resumes begins where the cursor says, however late it is opened."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.chat.resume_cursor import head_of_cursor, parse, text_of, topic_entry
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from tests.support.fake_topics import value
from tests.support.fakes import FakeClient, open_core

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
