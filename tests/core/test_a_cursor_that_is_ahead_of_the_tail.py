"""A cursor or a subscription may be of a topic that this instance's Tail has not found yet, if another instance knows it."""

from __future__ import annotations

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.resume_cursor import NOT_KNOWN, MessageIds, cluster_mark, head_of_cursor, text_of, topic_entry
from kafka_chat.chat.subscription_change import SubscriptionChange
from tests.core.test_resumable_session import GLOBAL, ROOM, cursor_of, kinds, resumed, told, v1, visiting
from tests.support.fake_topics import FakeTopic, value
from tests.support.fakes import Core, open_core


def cursor_in(core: Core, topic: str, position: int) -> str:
    """A cursor of another instance, in the topic that there is now."""
    head = head_of_cursor(cluster_mark("here"), NOT_KNOWN)
    return text_of(head + topic_entry(topic, core.kafka.topics[topic].topic_id, [position]))


def recreate_unnoticed(core: Core, topic: str, *texts: str) -> FakeTopic:
    """Recreate a topic, of which the Tail does not know yet; return the one that it knows."""
    old = core.kafka.topics.pop(topic)
    requested, core.kafka.requested = core.kafka.requested, set()
    core.kafka.opened.discard(topic)
    core.kafka.create(topic)
    core.kafka.requested = requested
    core.kafka.produce(topic, *[value(text) for text in texts])
    return old


def notice(core: Core, topic: str, old: FakeTopic) -> None:
    """Have the Tail find what there is now."""
    core.kafka.listener.topic_lost(topic, old.topic_id, LossCause.RECREATED)
    core.kafka._open(topic, created=True)
    core.kafka.catch_up(topic, 0)


@pytest.mark.promise("p-cursor-everywhere", "p-made-anew")
async def test_a_cursor_of_a_topic_that_the_tail_has_not_found_yet_waits_for_it_and_is_exact(autojump_clock: MockClock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"old {n}") for n in range(5)])
        core.audience.pin(GLOBAL)
        await wait_all_tasks_blocked()
        old = recreate_unnoticed(core, GLOBAL, "new 0", "new 1", "new 2")
        async with visiting(core, resumed(cursor_in(core, GLOBAL, 2))) as client:
            assert "new 2" not in kinds(client)
            notice(core, GLOBAL, old)
        assert [kind for kind in kinds(client) if kind != "[live]"] == ["[hello]", "new 2"]
        assert told(client, "hello")[0]["resume"] == "exact"
        async with visiting(core, resumed(cursor_of(client))) as again:
            core.kafka.produce(GLOBAL, value("later"))
        assert kinds(again) == ["[hello]", "[live]", "later"]


async def test_so_does_an_id_of_a_message(autojump_clock: MockClock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.audience.pin(GLOBAL)
        await wait_all_tasks_blocked()
        old = recreate_unnoticed(core, GLOBAL, "new 0", "new 1")
        cursor = MessageIds(GLOBAL, core.kafka.topics[GLOBAL].topic_id, 0).of(0).decode()
        async with visiting(core, resumed(cursor)) as client:
            notice(core, GLOBAL, old)
        assert [kind for kind in kinds(client) if kind != "[live]"] == ["[hello]", "new 1"]


@pytest.mark.promise("p-made-anew")
async def test_a_cursor_of_a_topic_that_is_gone_is_told_once_the_brokers_say_so(autojump_clock: MockClock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.audience.pin(GLOBAL)
        await wait_all_tasks_blocked()
        cursor = cursor_in(core, GLOBAL, 3)
        core.kafka.delete(GLOBAL, LossCause.RECREATED)
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("new"))
        async with visiting(core, resumed(cursor)) as client:
            pass
        assert kinds(client) == ["[hello]", "[gap]", "new", "[live]"]
        assert told(client, "hello")[0]["resume"] == "gap"
        gap = {"type": "gap", "chat": "global", "partition": 0, "first_lost": 3, "first_left": 0, "cause": "recreated"}
        assert told(client, "gap") == [gap]


async def test_a_cursor_of_a_topic_before_the_one_that_the_tail_knows_is_told_once_the_next_is_found(autojump_clock: MockClock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        cursor = cursor_in(core, GLOBAL, 3)
        core.kafka.delete(GLOBAL)
        core.kafka.create(GLOBAL)
        core.audience.pin(GLOBAL)
        await wait_all_tasks_blocked()
        old = recreate_unnoticed(core, GLOBAL, "new")
        async with visiting(core, resumed(cursor)) as client:
            notice(core, GLOBAL, old)
        assert [kind for kind in kinds(client) if kind != "[live]"] == ["[hello]", "[gap]", "new"]
        assert [(gap["first_lost"], gap["first_left"]) for gap in told(client, "gap")] == [(3, 0)]


async def test_a_subscription_to_a_topic_that_the_tail_has_not_found_yet_begins_where_it_says(autojump_clock: MockClock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.create(ROOM)
        core.audience.pin(ROOM)
        await wait_all_tasks_blocked()
        old = recreate_unnoticed(core, ROOM, "new 0", "new 1", "new 2")
        change = SubscriptionChange(
            username="ann", chat="room", subscribed=True, topic_id=core.kafka.topics[ROOM].topic_id, starts={0: 2}, offset=7
        )
        async with visiting(core, v1()) as client:
            core.audience.followed[ROOM].pinned = False  # it is nobody's default; pinned only to be followed before
            await core.audience.user_changed(change)
            await wait_all_tasks_blocked()
            notice(core, ROOM, old)
        assert [kind for kind in kinds(client) if kind != "[live]"] == ["[hello]", "[subscribed]", "new 2"]
