"""A fatal error (librdkafka has lost count of an idempotent producer's records) costs a producer, not the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaError

from kafka_chat.delivery.seams import KeyedRecord
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.publish import open_publisher

if TYPE_CHECKING:
    from tests.support.brokers import KafkaCluster
    from tests.support.chats import Chats


async def test_after_a_fatal_error_another_producer_takes_over(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("room"))
    async with open_publisher(ClientConfig(chats.settings_for(kafka).kafka)) as publisher:
        await publisher.publish(chats.topic("room"), KeyedRecord(b"k", b"before"))
        first = publisher._producer
        # librdkafka calls this in the polling thread; no broker can be made to bring it about.
        publisher._failed(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "made up", fatal=True))
        while publisher._producer is first:
            await publisher.publish(chats.topic("room"), KeyedRecord(b"k", b"meanwhile"))
        at = await publisher.publish(chats.topic("room"), KeyedRecord(b"k", b"after"))
    assert [record.value for record in kafka.records(chats.topic("room"))][at.offset] == b"after"
