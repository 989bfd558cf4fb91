"""The answers of a Lookup, on both brokers; no request creates a topic."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest
import trio

from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.delivery.timeouts import UNMEASURED_SECONDS
from kafka_chat.errors import BrokerUnreachable, SettingsError
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.lookup import open_lookup
from kafka_chat.settings.model import KafkaSettings
from tests.support.chats import message
from tests.support.leaks import nothing_left
from tests.support.tails import client_config


async def test_a_topic_is_described_by_its_identity_and_its_partitions(broker, chats):
    blue, red, absent = chats.topic("blue"), chats.topic("red"), chats.topic("absent")
    broker.create_topic(blue, 3)
    broker.create_topic(red, 1)
    async with open_lookup(client_config(broker)) as lookup:
        facts = await lookup.describe([blue, absent, red])
        assert facts.keys() == {blue, red}
        assert facts[blue].partitions == frozenset(range(broker.topics()[blue]))
        assert facts[blue].leaderless == frozenset()
        assert facts[blue].topic_id
        assert await lookup.describe([blue]) == {blue: facts[blue]}
        assert await lookup.describe([]) == {}
        assert absent not in broker.topics()


async def test_offsets_are_those_of_the_partitions_that_exist(broker, chats):
    topic, absent = chats.topic("blue"), chats.topic("absent")
    broker.create_topic(topic, 3)
    broker.produce_many(topic, [message(str(number)) for number in range(7)], partition=1)
    async with open_lookup(client_config(broker)) as lookup:
        topic_id = (await lookup.describe([topic]))[topic].topic_id
        keys = [PartitionKey(topic, topic_id, partition) for partition in (0, 1, 2, 99)]
        other = PartitionKey(absent, "", 0)
        ends = {key: broker.offsets(topic, key.partition).last_stable for key in keys[:3]}
        assert await lookup.last_stable_offsets([*keys, other]) == ends
        assert (await lookup.last_stable_offsets(keys[1:2]))[keys[1]] == 7
        assert await lookup.first_offsets([*keys, other]) == dict.fromkeys(keys[:3], 0)
        assert await lookup.last_stable_offsets([other]) == {}
        assert await lookup.first_offsets([]) == {}
        assert await lookup.offsets_at([other], 0) == {}
        assert absent not in broker.topics()


async def test_a_time_without_a_later_record_is_the_end(broker, chats):
    topic = chats.topic("blue")
    broker.create_topic(topic)
    broker.produce(topic, message("x"), partition=0)
    async with open_lookup(client_config(broker)) as lookup:
        key = PartitionKey(topic, (await lookup.describe([topic]))[topic].topic_id, 0)
        end = broker.offsets(topic, 0).last_stable
        assert await lookup.offsets_at([key], time.time_ns() // 1_000_000 + 60_000) == {key: end}


async def test_a_time_is_the_first_record_at_or_after_it(kafka, chats):
    topic = chats.topic("times")
    kafka.create_topic(topic, 2)
    now = time.time_ns() // 1_000_000
    for number in range(5):
        kafka.produce(topic, message(str(number)), partition=0, timestamp_ms=now - 10_000 + 1000 * number)
    async with open_lookup(client_config(kafka)) as lookup:
        topic_id = (await lookup.describe([topic]))[topic].topic_id
        key, empty = (PartitionKey(topic, topic_id, partition) for partition in (0, 1))
        assert await lookup.offsets_at([key, empty], now - 8_000) == {key: 2, empty: 0}
        assert await lookup.offsets_at([key], now - 7_999) == {key: 3}
        assert await lookup.offsets_at([key], 0) == {key: 0}


async def test_the_end_is_below_an_open_transaction_and_the_beginning_is_what_is_left(kafka, chats):
    topic = chats.topic("transaction")
    kafka.create_topic(topic)
    kafka.produce_many(topic, [message(str(number)) for number in range(4)], partition=0)
    kafka.delete_records(topic, 0, 3)
    transaction = kafka.transaction()
    transaction.produce(topic, message("open"), partition=0)
    async with open_lookup(client_config(kafka)) as lookup:
        key = PartitionKey(topic, kafka.topic_id(topic), 0)
        assert await lookup.last_stable_offsets([key]) == {key: 4}
        assert await lookup.first_offsets([key]) == {key: 3}
        transaction.commit()
        assert await lookup.last_stable_offsets([key]) == {key: 6}


async def test_a_topic_made_anew_has_another_identity(kafka, chats):
    topic = chats.topic("anew")
    first = kafka.create_topic(topic)
    async with open_lookup(client_config(kafka)) as lookup:
        assert (await lookup.describe([topic]))[topic].topic_id == first
        kafka.delete_topic(topic)
        assert await lookup.describe([topic]) == {}
        second = kafka.create_topic(topic)
        assert (await lookup.describe([topic]))[topic].topic_id == second != first


async def test_five_hundred_partitions_are_asked_for_at_once(kafka, chats):
    topic = chats.topic("wide")
    kafka.create_topic(topic, 500)
    async with open_lookup(client_config(kafka)) as lookup:
        facts = (await lookup.describe([topic]))[topic]
        keys = [PartitionKey(topic, facts.topic_id, partition) for partition in facts.partitions]
        assert await lookup.last_stable_offsets(keys) == dict.fromkeys(keys, 0)


async def test_without_a_broker_every_question_ends_in_time_and_a_cancelled_one_at_once():
    nowhere = ClientConfig(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    key = PartitionKey("topic", "id", 0)
    async with nothing_left():
        async with open_lookup(nowhere) as lookup:

            async def ends_in_time(ask: Callable[[], Awaitable[object]]) -> None:
                began = trio.current_time()
                with pytest.raises(BrokerUnreachable):
                    await ask()
                assert trio.current_time() - began < UNMEASURED_SECONDS + 1

            async with trio.open_nursery() as nursery:
                for ask in (
                    lookup.ping,
                    lambda: lookup.describe(["topic"]),
                    lambda: lookup.last_stable_offsets([key]),
                    lambda: lookup.first_offsets([key]),
                    lambda: lookup.offsets_at([key], 0),
                ):
                    nursery.start_soon(ends_in_time, ask)
            began = trio.current_time()
            with trio.move_on_after(0.1):
                await lookup.describe(["topic"])
            with trio.move_on_after(0.1):
                await lookup.last_stable_offsets([key])
            assert trio.current_time() - began < 1
            began = trio.current_time()
        assert trio.current_time() - began < 1


async def test_properties_that_librdkafka_refuses_are_named():
    wrong = KafkaSettings(bootstrap_servers="127.0.0.1:1", properties={"security.protocol": "what"})
    with pytest.raises(SettingsError, match=r"kafka\.properties .*security\.protocol"):
        async with open_lookup(ClientConfig(wrong)):
            pass
