"""Subscriptions hold on every instance and after every restart, because they are in a topic."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
import trio
from confluent_kafka import KafkaException

from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.chat.subscription_fold import record_key, record_value
from kafka_chat.delivery.ports import KeyedRecord
from kafka_chat.errors import BrokerError
from tests.support.calls import until
from tests.support.deadlines import HANG_SECONDS
from tests.support.instances import Instance, opened
from tests.support.leaks import nothing_left

if TYPE_CHECKING:
    from tests.support.brokers import Broker, KafkaCluster
    from tests.support.chats import Chats

SINCE = SubscriptionChange(username="any", chat="any", subscribed=True, starts={})


async def test_a_call_answers_with_what_it_wrote_and_tells_the_live_sessions(broker: Broker, chats: Chats) -> None:
    broker.create_topic(chats.topic("room1"))
    broker.produce(chats.topic("room1"), "before", partition=0)
    async with opened(chats.settings_for(broker)) as instance:
        answer = await instance.subscriptions.subscribe("ann", ["room1", "later"])
        assert [(chat.chat, chat.exists, chat.default) for chat in answer] == [
            ("global", False, True),
            ("later", False, False),
            ("room1", True, False),
        ]
        assert [(change.chat, change.subscribed) for change in instance.changes] == [("room1", True), ("later", True)]
        assert instance.changes[0].starts[0] == 1
        assert instance.changes[1].starts == {}
        assert answer == await instance.subscriptions.following("ann")
        await instance.subscriptions.unsubscribe("ann", None)
        assert instance.chats("ann") == []
        assert not instance.changes[-1].subscribed


async def test_other_instances_follow_and_so_does_the_next_one_to_start(broker: Broker, chats: Chats) -> None:
    settings = chats.settings_for(broker)
    async with opened(settings) as here, opened(settings) as there:
        await here.subscriptions.subscribe("ann", ["room1", "room2"])
        await here.subscriptions.subscribe("Zoë", ["room3"])
        await until(lambda: there.chats("Zoë") == ["room3"])
        await there.subscriptions.unsubscribe("ann", ["room2"])
        await until(lambda: here.chats("ann") == ["room1"])
        assert here.changes == there.changes
    async with opened(settings) as later:
        assert later.chats("ann") == ["room1"]
        assert later.chats("Zoë") == ["room3"]
        assert later.changes == []


@pytest.mark.deadline(120)
async def test_a_storm_of_parallel_changes_ends_the_same_everywhere(broker: Broker, chats: Chats) -> None:
    settings = chats.settings_for(broker)
    async with opened(settings) as here, opened(settings) as there:
        async with trio.open_nursery() as nursery:
            for number in range(300):
                subscriptions = (here, there)[number % 2].subscriptions
                operation = subscriptions.unsubscribe if number % 3 == 0 else subscriptions.subscribe
                nursery.start_soon(operation, f"user{number % 5}", [f"room{number % 7}", f"room{number % 11}"])
        # One more, so that each has read to the end.
        await here.subscriptions.subscribe("last", ["room"])
        await there.subscriptions.subscribe("last", ["other"])
        await until(lambda: here.chats("last") == ["other", "room"])
        expected = {f"user{n}": here.chats(f"user{n}") for n in range(5)}
        assert expected == {f"user{n}": there.chats(f"user{n}") for n in range(5)}
        assert here.changes == there.changes
    async with opened(settings) as later:
        assert expected == {f"user{n}": later.chats(f"user{n}") for n in range(5)}


async def test_the_same_call_many_times_at_once_is_answered_alike(broker: Broker, chats: Chats) -> None:
    async with opened(chats.settings_for(broker)) as instance:
        answers = []

        async def subscribe() -> None:
            answers.append(await instance.subscriptions.subscribe("ann", ["room1", "room2"]))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(subscribe)
        assert len(answers) == 50
        assert all(answer == answers[0] for answer in answers)
        assert len(instance.changes) == 2


async def test_records_that_make_no_sense_are_counted_and_passed_by(broker: Broker, chats: Chats) -> None:
    settings = chats.settings_for(broker)
    topic = chats.subscriptions_topic
    async with opened(settings) as instance:
        for key, value in [(b"\xff", b"x"), (record_key("ann", "room1"), b'{"v":7}'), (record_key("ann", "room1"), b"[]")]:
            broker.produce(topic, value, key=key, partition=0)
        await instance.subscriptions.subscribe("ann", ["room1"])
        assert instance.chats("ann") == ["room1"]
        metrics = instance.telemetry.metrics().decode()
        for reason in ("bad_key", "unknown_version", "bad_value"):
            assert f'kafka_chat_subscription_records_skipped_total{{reason="{reason}"}} 1.0' in metrics
    async with opened(settings) as later:
        assert later.chats("ann") == ["room1"]


async def test_thousands_of_records_are_read_at_the_start(broker: Broker, chats: Chats) -> None:
    settings = chats.settings_for(broker)
    records = [KeyedRecord(record_key(f"user{n}", f"room{m}"), record_value(SINCE)) for n in range(2000) for m in range(3)]
    async with opened(settings) as instance:
        offset = await instance.publisher.publish_together(chats.subscriptions_topic, records, partition=0)
        await instance.log.passed(offset)
        assert len(instance.changes) == 6000
    async with opened(settings) as later:
        assert later.chats("user1999") == ["room0", "room1", "room2"]
        assert later.changes == []


async def test_a_hundred_chats_in_one_call(broker: Broker, chats: Chats) -> None:
    async with opened(chats.settings_for(broker)) as instance:
        await instance.subscriptions.subscribe("ann", [f"room{n}" for n in range(100)])
        assert len(instance.chats("ann")) == 100
        assert len(await instance.subscriptions.unsubscribe("ann", None)) == 1
        assert instance.chats("ann") == []


@pytest.mark.promise("p-subscription-record", "p-makes-one-topic")
async def test_the_topic_is_made_compacted_with_one_partition(kafka: KafkaCluster, chats: Chats) -> None:
    assert chats.subscriptions_topic not in kafka.topics()
    async with opened(chats.settings_for(kafka)) as instance:
        assert instance.log.problem is None
        assert kafka.topics()[chats.subscriptions_topic] == 1
        assert kafka.config(chats.subscriptions_topic)["cleanup.policy"] == "compact"


async def test_several_instances_that_start_at_once_make_one_topic(kafka: KafkaCluster, chats: Chats) -> None:
    settings = chats.settings_for(kafka)
    async with trio.open_nursery() as nursery:

        async def start(name: str) -> None:
            async with opened(settings) as instance:
                await instance.subscriptions.subscribe("ann", [name])

        for number in range(4):
            nursery.start_soon(start, f"room{number}")
    async with opened(settings) as later:
        assert later.chats("ann") == ["room0", "room1", "room2", "room3"]


async def test_records_look_as_they_are_documented(kafka: KafkaCluster, chats: Chats) -> None:
    topic_id = kafka.create_topic(chats.topic("room1"), 2)
    kafka.produce_many(chats.topic("room1"), ["1", "2", "3"], partition=1)
    async with opened(chats.settings_for(kafka)) as instance:
        await instance.subscriptions.subscribe("ann", ["room1"])
        await instance.subscriptions.unsubscribe("ann", ["room1"])
    subscribed, ended = kafka.records(chats.subscriptions_topic)
    assert subscribed.value is not None
    assert json.loads(subscribed.value) == {"v": 1, "topic_id": topic_id, "from": {"0": 0, "1": 3}}
    assert (subscribed.key, ended.key, ended.value) == (b'{"user":"ann","chat":"room1"}', b'{"user":"ann","chat":"room1"}', None)


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
@pytest.mark.promise("p-not-ready", "p-subscriptions-topic-shape")
async def test_a_topic_that_would_lose_subscriptions_is_not_used_until_it_is_mended(kafka: KafkaCluster, chats: Chats, policy: str) -> None:
    kafka.create_topic(chats.subscriptions_topic, cleanup_policy=policy)
    async with opened(chats.settings_for(kafka), ready=False) as instance:
        await until(lambda: "compact is needed" in (instance.log.problem or ""))
        assert f"its cleanup.policy is {policy}" in str(instance.log.problem)
        with pytest.raises(BrokerError, match="compact is needed"):
            await instance.subscriptions.subscribe("ann", ["room1"])
        assert list(instance.subscriptions.chats_of("ann")) == ["global"]
        assert kafka.records(chats.subscriptions_topic) == []
        kafka.set_config(chats.subscriptions_topic, cleanup_policy="compact")
        await until(lambda: instance.log.problem is None)
        await instance.subscriptions.subscribe("ann", ["room1"])


@pytest.mark.promise("p-subscriptions-topic-shape")
async def test_a_topic_that_would_lose_subscriptions_from_now_on_is_not_used_until_it_is_mended(
    kafka: KafkaCluster, chats: Chats, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(chats.settings_for(kafka)) as instance:
        await instance.subscriptions.subscribe("ann", ["room1"])
        kafka.set_config(chats.subscriptions_topic, cleanup_policy="delete")
        await until(lambda: "its cleanup.policy is delete; compact is needed" in (instance.log.problem or ""))
        assert [line for line in caplog.messages if line.startswith("subscriptions.problem ")]
        with pytest.raises(BrokerError, match="compact is needed"):
            await instance.subscriptions.subscribe("ann", ["room2"])
        assert instance.chats("ann") == ["room1"]
        kafka.set_config(chats.subscriptions_topic, cleanup_policy="compact")
        await until(lambda: instance.log.problem is None)
        await instance.subscriptions.subscribe("ann", ["room2"])


@pytest.mark.promise("p-subscriptions-topic-shape")
async def test_a_topic_with_two_partitions_is_not_used(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.subscriptions_topic, 2, cleanup_policy="compact")
    async with opened(chats.settings_for(kafka), ready=False) as instance:
        await until(lambda: "has 2 partitions; exactly one is needed" in (instance.log.problem or ""))


async def test_a_topic_that_may_not_be_made_is_told(kafka: KafkaCluster, chats: Chats) -> None:
    settings = chats.settings_for(kafka, subscriptions__topic="..")
    async with opened(settings, ready=False) as instance:
        await until(lambda: "creating the subscriptions topic .." in (instance.log.problem or ""))
        with pytest.raises(BrokerError, match="creating the subscriptions topic"):
            await instance.subscriptions.subscribe("ann", ["room1"])
        assert list(instance.subscriptions.chats_of("ann")) == ["global"]


@pytest.mark.parametrize("records_after", [1, 9])
async def test_a_topic_made_anew_is_read_anew_and_the_difference_is_told(
    kafka: KafkaCluster, chats: Chats, records_after: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(chats.settings_for(kafka)) as instance:
        await instance.subscriptions.subscribe("ann", ["room1", "room2", "room3"])
        del instance.changes[:]
        kafka.delete_topic(chats.subscriptions_topic)
        await trio.to_thread.run_sync(make_anew, kafka, chats.subscriptions_topic, records_after)
        await until(lambda: instance.chats("ann") == ["room2", "room4"])
        await until(lambda: told_of(instance, "ann", {"room1", "room2", "room3"}) == {"room2", "room4"})
        assert told_of(instance, "bob", set()) == set(instance.chats("bob"))
        await until(lambda: lost_told(caplog) in (2, 3))  # as many as were in it when it was recreated, or read until then
        await until(lambda: instance.log.problem is None)
        await instance.subscriptions.subscribe("ann", ["room5"])
        assert "room5" in instance.chats("ann")


def lost_told(caplog: pytest.LogCaptureFixture) -> int:
    """Return how many subscriptions were lost, by the log."""
    lines = [line for line in caplog.messages if line.startswith("subscriptions.lost ")]
    return sum(int(line.partition("subscriptions=")[2].split()[0]) for line in lines)


def told_of(instance: Instance, username: str, followed: set[str]) -> set[str]:
    """Return what a live session would follow that followed so much, and was told what `instance` was."""
    for change in instance.changes:
        if change.username == username:
            (followed.add if change.subscribed else followed.discard)(change.chat)
    return followed


def make_anew(kafka: KafkaCluster, topic: str, records: int) -> None:
    with contextlib.suppress(KafkaException):  # the instance made it
        kafka.create_topic(topic, cleanup_policy="compact")
    for number in range(records - 1):
        kafka.produce(topic, record_value(SINCE), key=record_key("bob", f"room{number}"), partition=0)
    for chat in ("room2", "room4"):
        kafka.produce(topic, record_value(SINCE), key=record_key("ann", chat), partition=0)


async def test_what_compaction_leaves_says_the_same(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.subscriptions_topic
    await trio.to_thread.run_sync(
        lambda: kafka.create_topic(topic, cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio="0.01", delete_retention_ms=0)
    )
    settings = chats.settings_for(kafka)
    async with opened(settings) as instance:
        for _ in range(3):
            await instance.subscriptions.subscribe("ann", ["room1", "room2", "room3"])
            await instance.subscriptions.unsubscribe("ann", ["room1", "room2"])
        # A new record closes the segment before it; only closed ones are compacted.
        number = 0
        with trio.fail_after(HANG_SECONDS):
            while len([record for record in await trio.to_thread.run_sync(kafka.records, topic) if b'"ann"' in (record.key or b"")]) > 1:
                await trio.sleep(0.2)
                await instance.subscriptions.subscribe("bob", [f"room{number}"])
                number += 1
        assert instance.chats("ann") == ["room3"]
    async with opened(settings) as later:
        assert later.chats("ann") == ["room3"]
        assert len(later.chats("bob")) == number


async def test_a_foreign_transaction_in_the_topic_is_passed_by(kafka: KafkaCluster, chats: Chats) -> None:
    async with opened(chats.settings_for(kafka)) as instance:
        for end in ("commit", "abort"):
            transaction = await trio.to_thread.run_sync(kafka.transaction)
            transaction.produce(chats.subscriptions_topic, record_value(SINCE), key=record_key("ann", end), partition=0)
            await trio.to_thread.run_sync(getattr(transaction, end))
            await instance.subscriptions.subscribe("ann", [f"after-{end}"])
        assert instance.chats("ann") == ["after-abort", "after-commit", "commit"]
    async with opened(chats.settings_for(kafka)) as later:
        assert later.chats("ann") == ["after-abort", "after-commit", "commit"]


async def test_opened_closed_and_cancelled_at_any_moment_nothing_is_left(broker: Broker, chats: Chats) -> None:
    settings = chats.settings_for(broker)
    async with opened(settings) as instance:  # the topic is there, and trio has its worker threads
        await instance.subscriptions.subscribe("ann", ["room1"])
    async with nothing_left(brokers=broker.bootstrap):
        for seconds in (0, 0.003, 0.01, 0.03, 0.1, 0.3):
            with trio.move_on_after(seconds) as scope:
                async with opened(settings, ready=False) as instance:
                    await instance.log.wait_ready()
                    await instance.subscriptions.unsubscribe("ann", ["room1"])
                    await instance.subscriptions.subscribe("ann", ["room1"])
                    await trio.sleep_forever()
            assert trio.current_time() - scope.deadline < 1.5
    async with opened(settings) as instance:
        assert [chat.chat for chat in await instance.subscriptions.subscribe("ann", ["room1"])] == ["global", "room1"]
