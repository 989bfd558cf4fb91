"""What the Lookup assumes of librdkafka's AdminClient, and of the mock cluster; fails if a newer version differs."""

from __future__ import annotations

import threading
import uuid

import pytest
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.support.tails import client_config

SECONDS = 15.0


def admin_of(broker) -> AdminClient:
    return AdminClient(client_config(broker).admin())


def test_the_end_that_it_tells_lies_above_open_transactions_unless_told_otherwise(kafka):
    topic = f"edge-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(topic)
    transaction = kafka.transaction()
    transaction.produce(topic, b"x", partition=0)
    admin, partition_name = admin_of(kafka), TopicPartition(topic, 0)
    asked = {partition_name: OffsetSpec.latest()}
    assert admin.list_offsets(asked, request_timeout=SECONDS)[partition_name].result().offset == 1
    committed = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=SECONDS)
    assert committed[partition_name].result().offset == 0
    transaction.abort()


def test_asking_for_offsets_and_descriptions_makes_no_topic(kafka):
    absent = f"edge-{uuid.uuid4().hex[:8]}"
    admin, partition_name = admin_of(kafka), TopicPartition(absent, 0)
    for _ in range(3):
        with pytest.raises(KafkaException):
            admin.list_offsets({partition_name: OffsetSpec.latest()}, request_timeout=SECONDS)[partition_name].result()
        with pytest.raises(KafkaException) as refused:
            admin.describe_topics(TopicCollection([absent]), request_timeout=SECONDS)[absent].result()
        assert refused.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert absent not in kafka.topics()


def test_listing_a_topic_that_is_not_there_makes_none(kafka):
    absent = f"edge-{uuid.uuid4().hex[:8]}"
    admin = AdminClient(client_config(kafka).admin())
    for _ in range(3):
        assert admin.list_topics(absent, timeout=SECONDS).topics[absent].error is not None
    assert absent not in kafka.topics()


def test_a_callback_runs_in_a_thread_of_librdkafka(broker):
    topic = f"edge-{uuid.uuid4().hex[:8]}"
    broker.create_topic(topic)
    admin, partition_name = admin_of(broker), TopicPartition(topic, 0)
    called = threading.Event()
    threads: list[int] = []

    def answered(_: object) -> None:
        threads.append(threading.get_ident())
        called.set()

    admin.list_offsets({partition_name: OffsetSpec.latest()}, request_timeout=SECONDS)[partition_name].add_done_callback(answered)
    assert called.wait(SECONDS)


def test_the_mock_cluster_neither_describes_topics_nor_knows_times(embedded):
    """Where it learns to, the embedded lookup can go."""
    topic = f"edge-{uuid.uuid4().hex[:8]}"
    embedded.create_topic(topic)
    embedded.produce(topic, b"x", partition=0)
    admin, partition_name = admin_of(embedded), TopicPartition(topic, 0)
    with pytest.raises(KafkaException) as unanswered:
        admin.describe_topics(TopicCollection([topic]), request_timeout=1)[topic].result()
    assert unanswered.value.args[0].code() == KafkaError._TIMED_OUT
    assert admin.list_offsets({partition_name: OffsetSpec.for_timestamp(0)}, request_timeout=SECONDS)[partition_name].result().offset == -1
