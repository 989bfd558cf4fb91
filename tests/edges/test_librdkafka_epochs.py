"""What we assume of librdkafka about leader epochs: records and ends have them, and a seek reveals where one ends."""

from __future__ import annotations

from confluent_kafka import Consumer, TopicPartition

from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.chat.resume_cursor import NO_EPOCH
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.epoch_ends import BEYOND, NO_END, EpochEnds, end_told
from kafka_chat.kafka.lookup import open_lookup
from kafka_chat.settings.model import KafkaSettings
from tests.support.broker_client import Broker
from tests.support.brokers import KafkaCluster
from tests.support.chats import Chats
from tests.support.deadlines import HANG_SECONDS


def config_of(broker: Broker) -> ClientConfig:
    return ClientConfig(KafkaSettings(bootstrap_servers=broker.bootstrap))


async def test_the_error_of_a_seek_says_where_a_leader_epoch_ends(kafka: KafkaCluster, chats: Chats):
    """When this fails, librdkafka says otherwise what an unclean election did: see kafka_chat/kafka/epoch_ends.py."""
    topic = chats.topic("epochs")
    topic_id = kafka.create_topic(topic, 3)
    kafka.produce_many(topic, [b"x"] * 7, partition=0)
    kafka.produce_many(topic, [b"x"] * 3, partition=1)
    keys = [PartitionKey(topic, topic_id, number) for number in range(3)]
    ends = EpochEnds(config_of(kafka))
    assert await ends.ask(keys, 0) == dict(zip(keys, (7, 3, 0), strict=True))
    assert await ends.ask(keys, 5) == dict.fromkeys(keys, NO_END)  # no broker has heard of it
    async with open_lookup(config_of(kafka)) as lookup:
        assert await lookup.epoch_ends(keys[:1], 0) == {keys[0]: 7}


async def test_records_and_ends_of_logs_have_epochs(kafka: KafkaCluster, chats: Chats):
    topic = chats.topic("epochs")
    topic_id = kafka.create_topic(topic)
    kafka.produce_many(topic, [b"x"] * 2, partition=0)
    async with open_lookup(config_of(kafka)) as lookup:
        (end,) = (await lookup.log_ends([PartitionKey(topic, topic_id, 0)])).values()
    assert end.offset == 2
    assert end.epoch != NO_EPOCH
    consumer = Consumer({**config_of(kafka).consumer()})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        record = consumer.poll(HANG_SECONDS)
        assert record is not None
        assert record.leader_epoch() == end.epoch
    finally:
        consumer.close()


async def test_a_position_that_is_out_of_range_tells_no_epoch(kafka: KafkaCluster, chats: Chats):
    topic = chats.topic("epochs")
    kafka.create_topic(topic)
    consumer = Consumer({**config_of(kafka).consumer()})
    try:
        consumer.assign([TopicPartition(topic, 0, BEYOND)])
        told = consumer.poll(HANG_SECONDS)
        assert told is not None
        error = told.error()
        assert error is not None
        assert end_told(error) is None
    finally:
        consumer.close()
