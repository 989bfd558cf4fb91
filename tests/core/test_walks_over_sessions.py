"""Events of a topic or a user reach all its sessions, without blocking the loop, whichever sessions come and go meanwhile."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.log.follower import Follower
from kafka_chat.delivery.records.formats import PLAIN
from kafka_chat.delivery.session.session import Session
from kafka_chat.loop_sharing import TURN_SECONDS
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core
from tests.support.loop_steps import loop_steps

if TYPE_CHECKING:
    from kafka_chat.chat.partition_key import PartitionKey

GLOBAL = "kafka.chat.global"
ROOM = "kafka.chat.room"
MANY = 2000
OF_THE_TEST = ("<test",)


def positions(session: Session) -> list[int]:
    """Where it is, in the order of partitions."""
    return [cursor.position for _, cursor in sorted(session.follower.cursors.items())]


def join(core: Core, stack: ExitStack, username: str = "ann", *, known: bool = True) -> Session:
    session = core.session(username)
    stack.enter_context(core.audience.joined(session, known=known))
    return session


@pytest.mark.parametrize("subscribed", [True, False])
async def test_a_change_of_a_user_with_many_sockets(autojump_clock, subscribed):
    async with open_core() as core, trio.open_nursery() as nursery:
        core.kafka.create(ROOM, partitions=3)
        core.chats["ann"] = set() if subscribed else {"room"}
        topic_id = core.kafka.topics[ROOM].topic_id
        change = SubscriptionChange(username="ann", chat="room", subscribed=subscribed, topic_id=topic_id, starts={})
        with ExitStack() as stack:
            sessions = [join(core, stack) for _ in range(MANY)]
            core.chats["bo"] = {"room"}
            join(core, stack, "bo")
            await wait_all_tasks_blocked()
            with loop_steps() as steps:
                nursery.start_soon(core.audience.user_changed, change)
                await wait_all_tasks_blocked()
            steps.check(ignore=OF_THE_TEST)
            assert {len(session.follower.cursors) for session in sessions} == {3 if subscribed else 0}


async def test_all_that_happens_to_a_topic_with_many_followers(autojump_clock):
    async with open_core() as core:
        with ExitStack() as stack:
            sessions = [join(core, stack, f"user{number}") for number in range(MANY)]
            await wait_all_tasks_blocked()
            with loop_steps() as steps:
                core.kafka.create(GLOBAL, partitions=3)
                await wait_all_tasks_blocked()
                assert {tuple(positions(session)) for session in sessions} == {(0, 0, 0)}
                core.kafka.produce(GLOBAL, value("a"), value("b"))
                core.audience.followed.position_lost(core.kafka.key(GLOBAL), 2, 1, LossCause.TRUNCATED)
                core.audience.followed.position_lost(core.kafka.key(GLOBAL, 1), 0, 7, LossCause.RETENTION)
                await wait_all_tasks_blocked()
                assert {tuple(positions(session)) for session in sessions} == {(0, 7, 0)}  # none had been delivered anything
                core.kafka.delete(GLOBAL, LossCause.RECREATED)
                await wait_all_tasks_blocked()
                assert not any(session.follower.cursors for session in sessions)
                core.kafka.create(GLOBAL)
                await wait_all_tasks_blocked()
                assert {tuple(positions(session)) for session in sessions} == {(0,)}
            steps.check(ignore=OF_THE_TEST)
    assert core.memory.held_bytes == 0


async def test_the_reading_of_the_subscriptions_with_many_that_came_before(autojump_clock):
    async with open_core() as core, trio.open_nursery() as nursery:
        core.kafka.create(ROOM)
        with ExitStack() as stack:
            for number in range(MANY):
                core.chats[f"user{number}"] = set()
            sessions = [join(core, stack, f"user{number}", known=False) for number in range(MANY)]
            for number in range(MANY):
                core.chats[f"user{number}"] = {"room"}
            with loop_steps() as steps:
                nursery.start_soon(core.audience.subscriptions_read)
                await wait_all_tasks_blocked()
                await trio.sleep(2)  # their offsets are asked for
            steps.check(ignore=OF_THE_TEST)
            assert {tuple(positions(session)) for session in sessions} == {(0,)}
            assert all(map(core.audience.has_started, sessions))


class SlowFollower(Follower):
    """A follower at which a walk lets others have their turn."""

    def wake(self) -> None:
        time.sleep(1.5 * TURN_SECONDS)
        super().wake()


class Slow(Session):
    """A session that has one."""

    gaps = 0

    def on_gap(self, key: PartitionKey, first_lost: int, first_left: int, cause: LossCause) -> None:
        self.gaps += 1


def slow(core: Core, username: str) -> Slow:
    session = Slow(core.context, username=username)
    session.follower = SlowFollower(session, PLAIN, core.reads)
    return session


@pytest.mark.parametrize("what", ["opened", "added", "truncated", "retention", "recreated", "user"])
@pytest.mark.parametrize("turns", range(0, 9, 2))
async def test_who_comes_and_goes_in_the_middle_of_a_walk(autojump_clock, what, turns):
    """Six follow; after some turns of the walk one goes, one goes and comes again, one comes, and a message is appended."""
    users = [f"user{number}" for number in range(6)]
    async with open_core() as core, trio.open_nursery() as nursery:
        for user in [*users, "late", "stays"]:
            core.chats[user] = set() if what == "user" else {"room"}
        core.chats["stays"] = {"room"}
        if what != "opened":
            core.kafka.create(ROOM, partitions=1)
        with ExitStack() as stack:
            join(core, stack, "stays")
            sessions = [slow(core, "user0" if what == "user" else user) for user in users]
            stacks = [stack.enter_context(ExitStack()) for _ in users]
            for session, of_one in zip(sessions, stacks, strict=True):
                of_one.enter_context(core.audience.joined(session, known=True))
            await wait_all_tasks_blocked()
            topic = core.kafka.topics.get(ROOM)
            match what:
                case "opened":
                    core.kafka.create(ROOM)
                case "added":
                    assert topic is not None
                    topic.partitions[1] = type(topic.partitions[0])()
                    core.audience.followed.topic_opened(ROOM, topic.topic_id, {1: 0}, created=True)
                case "truncated" | "retention":
                    assert topic is not None
                    topic.partitions[0].end = 5
                    core.audience.followed.position_lost(core.kafka.key(ROOM), 0, 5, LossCause(what))
                case "recreated":
                    core.kafka.delete(ROOM, LossCause.RECREATED)
                    core.kafka.create(ROOM)
                case "user":
                    assert topic is not None
                    change = SubscriptionChange(username="user0", chat="room", subscribed=True, topic_id=topic.topic_id, starts={})
                    nursery.start_soon(core.audience.user_changed, change)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            stacks[1].close()
            stacks[4].close()
            if what == "user":
                core.chats["user0"] = core.chats["late"] = {"room"}
            again = slow(core, sessions[4].username)
            stack.enter_context(core.audience.joined(again, known=True))
            late = slow(core, "late")
            stack.enter_context(core.audience.joined(late, known=True))
            partition = max(core.kafka.topics[ROOM].partitions)
            head = core.kafka.topics[ROOM].partitions[partition].end
            core.kafka.produce(ROOM, value("m"), partition=partition)
            stay = [sessions[0], sessions[2], sessions[3], sessions[5]]
            for session in (*stay, again, late):  # one that has not got all its cursors tells no cursor that leaves them out
                assert what == "user" or not core.audience.has_started(session) or len(session.follower.cursors) == partition + 1
            await wait_all_tasks_blocked()
            first = 0 if what == "truncated" else head  # who had had nothing gets what a truncated log has, too
            assert [positions(session)[-1] for session in stay] == [first] * 4
            assert [positions(session)[-1] for session in (again, late)] == [head] * 2
            assert [session.gaps for session in stay] == [1 if what in ("retention", "recreated") else 0] * 4
            assert not sessions[1].follower.cursors
            assert not sessions[4].follower.cursors
            assert all(map(core.audience.has_started, [*stay, again, late]))
    assert (core.audience.sessions, core.audience.partitions, core.kafka.requested) == (0, 0, set())
    assert core.memory.held_bytes == 0


async def test_a_topic_that_nobody_follows_any_more_in_the_middle_of_its_walk_leaves_nothing(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=2)
        with ExitStack() as stack:
            for number in range(4):
                stack.enter_context(core.audience.joined(slow(core, f"user{number}"), known=True))
            await wait_all_tasks_blocked()
            core.kafka.produce(GLOBAL, value("m"))
            core.audience.followed.position_lost(core.kafka.key(GLOBAL), 0, 5, LossCause.RETENTION)
            core.kafka.delete(GLOBAL, LossCause.RECREATED)
            await trio.lowlevel.checkpoint()
        client = FakeClient()
        core.kafka.create(GLOBAL)
        async with core.connected(client):
            core.kafka.produce(GLOBAL, value("new"))
            await wait_all_tasks_blocked()
        assert client.texts == ["new"]
    assert (core.audience.sessions, core.audience.partitions, core.kafka.requested) == (0, 0, set())
    assert core.memory.held_bytes == 0
