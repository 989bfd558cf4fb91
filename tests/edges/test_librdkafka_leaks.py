"""The memory that confluent_kafka leaks, and our workaround; fails when upstream fixes it."""

from __future__ import annotations

import gc
import uuid

from confluent_kafka import TopicCollection, Uuid
from confluent_kafka.admin import AdminClient

from kafka_chat.kafka.lookup import open_lookup
from kafka_chat.kafka.topic_ids import release_topic_id, surplus_references
from tests.support.brokers import KafkaCluster
from tests.support.tails import client_config

SECONDS = 15.0


def test_a_description_leaves_one_reference_too_many_to_its_topic_id_and_that_is_given_back(kafka: KafkaCluster) -> None:
    topic = f"edge-{uuid.uuid4().hex[:8]}"
    topic_id = kafka.create_topic(topic)
    admin = AdminClient(client_config(kafka).admin())
    future = admin.describe_topics(TopicCollection([topic]), request_timeout=SECONDS)[topic]
    assert surplus_references(future.result()) == 1, "confluent_kafka is mended: kafka/topic_ids.py can go"
    release_topic_id(future)
    assert surplus_references(future.result()) == 0
    release_topic_id(future)
    assert surplus_references(future.result()) == 0, "what is not too many is left alone"
    assert str(future.result().topic_id) == topic_id


async def test_looking_leaves_no_topic_id_behind(kafka: KafkaCluster) -> None:
    topics = [f"edge-{uuid.uuid4().hex[:8]}" for _ in range(3)]
    for topic in topics:
        kafka.create_topic(topic)
    async with open_lookup(client_config(kafka)) as lookup:
        before = len(_topic_ids())
        for _ in range(5):
            facts = await lookup.describe([*topics, "absent"])
            assert facts.keys() == set(topics)
            await lookup.operations(topics)
    assert len(_topic_ids()) <= before


def _topic_ids() -> list[Uuid]:
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) is Uuid]
