"""Reading and changing subscriptions, with a Kafka in memory."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from kafka_chat.chat.names import TOPIC_LENGTH
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.chat.subscription_fold import record_key
from kafka_chat.delivery.writes.subscriptions import FollowedChat, Subscriptions
from kafka_chat.errors import BrokerError, BrokerUnreachable, Conflict, RequestError
from kafka_chat.settings.model import Limits, Settings
from tests.support.fake_subscription_log import FakePublisher, FakeSubscriptionLog
from tests.support.fake_topics import NAMES, PREFIX, FakeKafka, value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GLOBAL = FollowedChat(chat="global", topic="kafka.chat.global", exists=True, default=True)


@dataclass
class Instance:
    kafka: FakeKafka
    publisher: FakePublisher
    log: FakeSubscriptionLog
    subscriptions: Subscriptions
    changes: list[SubscriptionChange]

    @property
    def records(self) -> list[tuple[dict[str, str], dict[str, object] | None]]:
        topic = self.publisher.topics[self.log.TOPIC]
        return [(json.loads(key), None if value is None else json.loads(value)) for key, value, *_ in topic]

    async def chats(self, username: str = "ann") -> list[str]:
        return [chat.chat for chat in await self.subscriptions.following(username)]


@asynccontextmanager
async def opened(
    *, kafka: FakeKafka | None = None, publisher: FakePublisher | None = None, chats_per_user: int = 200, read: bool = True
) -> AsyncIterator[Instance]:
    if kafka is None:
        kafka = FakeKafka()
        kafka.create("kafka.chat.global")
    publisher = publisher or FakePublisher()
    changes: list[SubscriptionChange] = []
    log = FakeSubscriptionLog(publisher, changes.append)
    settings = Settings(limits=Limits(chats_per_user=chats_per_user))
    async with trio.open_nursery() as nursery:
        if read:
            await nursery.start(log.run)
        yield Instance(kafka, publisher, log, Subscriptions(log, lookup=kafka, names=NAMES, settings=settings), changes)
        nursery.cancel_scope.cancel()


async def test_an_unknown_user_follows_the_defaults(autojump_clock) -> None:
    async with opened() as here:
        assert await here.subscriptions.following("nobody") == [GLOBAL]


@pytest.mark.promise("p-list")
async def test_subscribing_answers_with_all_that_is_followed_sorted_by_chat(autojump_clock) -> None:
    async with opened() as here:
        here.kafka.create(PREFIX + "room1")
        answer = await here.subscriptions.subscribe("ann", ["zoo", "kafka.chat.room1", "room1"])
        assert answer == [
            GLOBAL,
            FollowedChat(chat="room1", topic="kafka.chat.room1", exists=True, default=False),
            FollowedChat(chat="zoo", topic="kafka.chat.zoo", exists=False, default=False),
        ]
        assert answer == await here.subscriptions.following("ann")


async def test_a_subscription_begins_at_the_ends_of_the_topic_that_is_there(autojump_clock) -> None:
    async with opened() as here:
        here.kafka.create(PREFIX + "room1", partitions=2)
        here.kafka.produce(PREFIX + "room1", value("1"), value("2"), partition=1)
        await here.subscriptions.subscribe("ann", ["room1", "later"])
        topic_id = here.kafka.topics[PREFIX + "room1"].topic_id
        assert here.records == [
            ({"user": "ann", "chat": "room1"}, {"v": 1, "topic_id": topic_id, "from": {"0": 0, "1": 2}}),
            ({"user": "ann", "chat": "later"}, {"v": 1, "topic_id": "", "from": {}}),
        ]
        assert [(change.chat, dict(change.starts)) for change in here.changes] == [("room1", {0: 0, 1: 2}), ("later", {})]


async def test_a_chat_of_the_longest_name_is_followed(autojump_clock) -> None:
    async with opened() as here:
        longest = "x" * (TOPIC_LENGTH - len(PREFIX))
        await here.subscriptions.subscribe("ann", [longest])
        assert await here.chats() == ["global", longest]


async def test_subscribing_again_writes_nothing(autojump_clock) -> None:
    async with opened() as here:
        for _ in range(3):
            await here.subscriptions.subscribe("ann", ["room1", "global"])
        assert len(here.records) == 1


async def test_a_call_tells_at_which_offset_each_of_its_records_is(autojump_clock) -> None:
    async with opened() as here:
        calls = here.subscriptions.subscribe, here.subscriptions.subscribe, here.subscriptions.unsubscribe
        written: dict[str, int] = {}
        for call, chats, new in zip(calls, (["b"], ["b", "c", "a"], ["c", "b"]), ({"b"}, {"c", "a"}, {"b", "c"}), strict=True):
            before = len(here.publisher.topics[here.log.TOPIC])
            await call("ann", chats, written=written.update)
            assert {record["chat"]: offset for offset, (record, _) in enumerate(here.records) if offset >= before} == written
            assert written.keys() == new
            written.clear()


async def test_the_same_subscription_in_parallel_is_written_once(autojump_clock) -> None:
    async with opened() as here:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(here.subscriptions.subscribe, "ann", ["room1", "room2"])
        assert len(here.records) == 2
        assert await here.chats() == ["global", "room1", "room2"]


async def test_subscriptions_to_different_chats_in_parallel_all_hold(autojump_clock) -> None:
    async with opened() as here:
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(here.subscriptions.subscribe, "ann", [f"room{number}"])
        assert len(await here.chats()) == 201


async def test_unsubscribing_ends_one_and_without_chats_all_but_the_defaults(autojump_clock) -> None:
    async with opened() as here:
        await here.subscriptions.subscribe("ann", ["room1", "room2", "room3"])
        assert [chat.chat for chat in await here.subscriptions.unsubscribe("ann", ["room2"])] == ["global", "room1", "room3"]
        assert await here.subscriptions.unsubscribe("ann", None) == [GLOBAL]
        assert await here.subscriptions.unsubscribe("ann", None) == [GLOBAL]
        assert [(key["chat"], value) for key, value in here.records[3:]] == [("room2", None), ("room1", None), ("room3", None)]


async def test_unsubscribing_from_what_is_not_followed_writes_nothing(autojump_clock) -> None:
    async with opened() as here:
        assert await here.subscriptions.unsubscribe("ann", ["room1"]) == [GLOBAL]
        assert here.records == []


async def test_nobody_is_unsubscribed_from_a_default_nor_in_the_same_call_from_others(autojump_clock) -> None:
    async with opened() as here:
        await here.subscriptions.subscribe("ann", ["room1"])
        with pytest.raises(Conflict, match=r"everybody follows global \(chats.default\)"):
            await here.subscriptions.unsubscribe("ann", ["room1", "global"])
        assert await here.chats() == ["global", "room1"]


@pytest.mark.parametrize("operation", ["subscribe", "unsubscribe"])
@pytest.mark.parametrize(
    ("chats", "sentence"),
    [
        ([], "topic is missing"),
        (["room1", ""], "topic is empty"),
        (["room1", "room 2"], "a chat is made of letters"),
        (["room1", "r" * 239], "at most 238 are allowed"),
        ([f"room{n}" for n in range(101)], "topic is given 101 times; at most 100"),
    ],
)
@pytest.mark.promise("p-subscribe")
async def test_one_bad_chat_spoils_the_call(operation: str, chats: list[str], sentence: str, autojump_clock) -> None:
    async with opened() as here:
        await here.subscriptions.subscribe("ann", ["room1"])
        with pytest.raises(RequestError, match=sentence) as caught:
            await getattr(here.subscriptions, operation)("ann", chats)
        assert caught.value.field == "topic"
        assert caught.value.status == 400
        assert await here.chats() == ["global", "room1"]


@pytest.mark.promise("p-subscribe")
async def test_the_limit_counts_the_users_own_chats_and_refuses_the_whole_call(autojump_clock) -> None:
    async with opened(chats_per_user=3) as here:
        await here.subscriptions.subscribe("ann", ["a", "b", "global"])
        with pytest.raises(Conflict, match=r"limits\.chats_per_user, 3"):
            await here.subscriptions.subscribe("ann", ["c", "d"])
        assert await here.chats() == ["a", "b", "global"]
        await here.subscriptions.subscribe("ann", ["c"])
        await here.subscriptions.subscribe("ann", ["a", "b", "c"])
        with pytest.raises(Conflict):
            await here.subscriptions.subscribe("ann", ["d"])
        await here.subscriptions.unsubscribe("ann", ["a"])
        await here.subscriptions.subscribe("ann", ["d"])
        assert await here.chats() == ["b", "c", "d", "global"]


async def test_parallel_calls_together_stay_below_the_limit(autojump_clock) -> None:
    async with opened(chats_per_user=5) as here:
        refused = 0

        async def subscribe(chat: str) -> None:
            nonlocal refused
            try:
                await here.subscriptions.subscribe("ann", [chat])
            except Conflict:
                refused += 1

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(subscribe, f"room{number}")
        assert len(await here.chats()) == 6
        assert refused == 15


async def test_before_the_topic_is_read_nobody_is_told_what_they_follow(autojump_clock) -> None:
    async with opened(read=False) as here:
        for operation in (
            here.subscriptions.following,
            partial(here.subscriptions.subscribe, chats=["room1"]),
            partial(here.subscriptions.unsubscribe, chats=None),
        ):
            with pytest.raises(BrokerUnreachable, match="still being read"):
                await operation("ann")
        assert list(here.subscriptions.chats_of("ann")) == ["global"]


async def test_a_problem_with_the_topic_refuses_subscribing_and_leaves_the_defaults(autojump_clock) -> None:
    async with opened() as here:
        here.log.problem = "its cleanup.policy is delete; compact is needed"
        with pytest.raises(BrokerError, match="compact is needed"):
            await here.subscriptions.subscribe("ann", ["room1"])
        assert await here.chats() == ["global"]


async def test_no_answer_from_the_brokers_is_told_within_five_seconds_and_nothing_is_written(autojump_clock) -> None:
    async with opened() as here:
        here.publisher.away = True
        began = trio.current_time()
        with pytest.raises(BrokerUnreachable):
            await here.subscriptions.subscribe("ann", ["room1"])
        assert trio.current_time() - began <= 5.01
        here.kafka.away = True
        with pytest.raises(BrokerUnreachable):
            await here.subscriptions.following("ann")
        assert here.records == []


async def test_what_could_be_written_only_after_the_refusal_is_not_written(autojump_clock) -> None:
    class SlowLookup(FakeKafka):
        async def last_stable_offsets(self, keys):
            await trio.sleep(2)
            return await super().last_stable_offsets(keys)

    async with opened(kafka=SlowLookup()) as here:
        with pytest.raises(BrokerUnreachable, match=r"the brokers took 2.0 s to answer; nothing was written"):
            await here.subscriptions.subscribe("ann", ["room1"])
        assert here.records == []


async def test_an_answer_waits_until_our_own_tail_has_it(autojump_clock) -> None:
    async with opened(read=False) as here:
        here.log.read()
        answered = trio.Event()

        async def subscribe() -> None:
            await here.subscriptions.subscribe("ann", ["room1"])
            answered.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(subscribe)
            await trio.testing.wait_all_tasks_blocked()
            assert len(here.records) == 1
            assert not answered.is_set()
            here.log.read()
            await answered.wait()
        assert "room1" in here.subscriptions.chats_of("ann")


@pytest.mark.promise("p-may-be-written")
async def test_a_tail_that_does_not_get_there_is_told_after_five_seconds(autojump_clock) -> None:
    async with opened(read=False) as here:
        here.log.read()
        began = trio.current_time()
        with pytest.raises(BrokerUnreachable, match="subscribing ann: it is written, and in force here soon, but not within 5 s"):
            await here.subscriptions.subscribe("ann", ["room1"])
        assert trio.current_time() - began == pytest.approx(5)
        assert len(here.records) == 1


@pytest.mark.promise("p-may-be-written")
async def test_what_is_written_is_told_as_written_also_where_no_broker_answers_what_else_is_followed(autojump_clock) -> None:
    async with opened(read=False) as here, trio.open_nursery() as nursery:
        here.log.read()

        async def subscribe() -> None:
            with pytest.raises(BrokerUnreachable, match="subscribing ann: it is written, and in force here soon, but asking"):
                await here.subscriptions.subscribe("ann", ["room1"])

        nursery.start_soon(subscribe)
        await trio.testing.wait_all_tasks_blocked()
        await here.log.write([SubscriptionChange(username="ann", chat="room2", subscribed=True, starts={})])  # another instance
        here.kafka.away = True
        here.log.read()


async def test_a_partition_without_a_leader_refuses_rather_than_starting_at_zero(autojump_clock) -> None:
    class Leaderless(FakeKafka):
        async def last_stable_offsets(self, keys):
            return {key: end for key, end in (await super().last_stable_offsets(keys)).items() if key.partition != 1}

    kafka = Leaderless()
    kafka.create(PREFIX + "room1", partitions=2)
    async with opened(kafka=kafka) as here:
        with pytest.raises(BrokerUnreachable, match=r"kafka\.chat\.room1/1 is unknown; it has no leader now"):
            await here.subscriptions.subscribe("ann", ["room1"])
        assert here.records == []


async def test_ending_a_subscription_whose_call_was_cancelled_ends_it(autojump_clock) -> None:
    async with opened(read=False) as here:
        here.log.read()
        with trio.move_on_after(1):
            await here.subscriptions.subscribe("ann", ["room1"])  # written, but not read back yet
        async with trio.open_nursery() as nursery:
            await nursery.start(here.log.run)
            await here.subscriptions.unsubscribe("ann", ["room1"])
            assert await here.chats() == ["global"]
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("chats", [["room1"], None])
async def test_unsubscribing_ends_what_is_just_being_subscribed_to(chats: list[str] | None, autojump_clock) -> None:
    async with opened() as here:
        here.publisher.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.subscriptions.subscribe, "ann", ["room1"])
            await trio.sleep(0.5)
            nursery.start_soon(here.subscriptions.unsubscribe, "ann", chats)
            await trio.sleep(0.5)
            here.publisher.gate.set()
        assert await here.chats() == ["global"]
        assert len(here.records) == 2


@pytest.mark.parametrize("chats", [["room1"], None])
async def test_a_subscription_in_doubt_is_ended_though_it_cannot_be_seen(chats: list[str] | None, autojump_clock) -> None:
    async with opened(read=False) as here:
        here.log.read()
        with trio.move_on_after(1):
            await here.subscriptions.subscribe("ann", ["room1", "room2"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.subscriptions.unsubscribe, "ann", chats)
            await trio.testing.wait_all_tasks_blocked()
            assert here.records[2] == ({"user": "ann", "chat": "room1"}, None)
            here.log.read()
        assert "room1" not in here.subscriptions.chats_of("ann")


async def test_an_end_in_doubt_is_written_over_by_subscribing(autojump_clock) -> None:
    async with opened(read=False) as here:
        here.log.read()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.subscriptions.subscribe, "ann", ["room1"])
            await trio.testing.wait_all_tasks_blocked()
            here.log.read()
        with trio.move_on_after(1):
            await here.subscriptions.unsubscribe("ann", ["room1"])
        assert "room1" in here.subscriptions.chats_of("ann")  # as far as has been read
        async with trio.open_nursery() as nursery:
            await nursery.start(here.log.run)
            await here.subscriptions.subscribe("ann", ["room1"])
            assert await here.chats() == ["global", "room1"]
            nursery.cancel_scope.cancel()


async def test_a_doubt_is_forgotten_after_a_minute(autojump_clock) -> None:
    async with opened(read=False) as here:
        here.log.read()
        with trio.move_on_after(1):
            await here.subscriptions.subscribe("ann", ["room1"])
        del here.publisher.topics[here.log.TOPIC][:]  # it never came true
        await trio.sleep(61)
        await here.subscriptions.unsubscribe("ann", ["room1"])
        assert here.records == []


async def test_two_instances_agree_after_a_storm(autojump_clock) -> None:
    kafka, publisher = FakeKafka(), FakePublisher()
    async with opened(kafka=kafka, publisher=publisher) as here, opened(kafka=kafka, publisher=publisher) as there:
        async with trio.open_nursery() as nursery:
            for number in range(60):
                instance = (here, there)[number % 2]
                chat = [f"room{number % 7}"]
                nursery.start_soon(instance.subscriptions.subscribe if number % 3 else instance.subscriptions.unsubscribe, "ann", chat)
        here.log.read()
        there.log.read()
        assert await here.chats() == await there.chats()
        assert here.changes == there.changes


async def test_a_chat_subscribed_to_under_a_shorter_prefix_is_left_out(autojump_clock) -> None:
    async with opened() as here:
        here.publisher.topics[here.log.TOPIC].append((record_key("ann", "r" * 240), b'{"v":1,"topic_id":"","from":{}}'))
        here.log.read()
        assert await here.chats() == ["global"]


async def test_a_default_chat_has_no_start_though_it_was_once_subscribed_to(autojump_clock) -> None:
    async with opened() as here:
        here.publisher.topics[here.log.TOPIC].append((record_key("ann", "global"), b'{"v":1,"topic_id":"id1","from":{"0":7}}'))
        here.log.read()
        assert here.subscriptions.chats_of("ann")["global"].starts == {}
        assert await here.subscriptions.unsubscribe("ann", None) == [GLOBAL]
        assert len(here.records) == 1
