"""What the Tail and the pages assume of librdkafka's Consumer; fails if a newer version differs."""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from kafka_chat.kafka.connect import SparingLogger
from kafka_chat.kafka.ids_read import IdsRead
from tests.support.tails import client_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 15.0


@contextmanager
def consumer(broker, **extra: object) -> Iterator[Consumer]:
    made = Consumer(client_config(broker).consumer(fetch_wait_ms=20, **extra))
    try:
        yield made
    finally:
        made.close()


def poll_until(polled: Consumer, condition: Callable[[list[Message]], bool], seconds: float = SECONDS) -> list[Message]:
    """Poll until the condition holds of all that came."""
    came: list[Message] = []
    deadline = time.monotonic() + seconds
    while not condition(came):
        assert time.monotonic() < deadline, f"only {len(came)} messages came within {seconds} s"
        message = polled.poll(0.02)
        if message is not None:
            came += [message, *polled.consume(1000, 0)]
    return came


def poll_for(polled: Consumer, seconds: float) -> list[Message]:
    """Return what comes in that time."""
    came: list[Message] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        message = polled.poll(0.02)
        if message is not None:
            came.append(message)
    return came


def position(polled: Consumer, topic: str) -> int:
    return polled.position([TopicPartition(topic, 0)])[0].offset


def topic_of(broker, *, partitions: int = 1, records: int = 0) -> str:
    topic = f"edge-{uuid.uuid4().hex[:8]}"
    broker.create_topic(topic, partitions)
    if records:
        broker.produce_many(topic, [str(number) for number in range(records)], partition=0)
    return topic


def test_consume_without_a_timeout_returns_at_once_what_is_there(broker):
    topic = topic_of(broker, records=20)
    with consumer(broker) as polled:
        polled.incremental_assign([TopicPartition(topic, 0, 0)])
        assert [message.offset() for message in poll_until(polled, lambda came: len(came) == 20)] == list(range(20))
        began = time.monotonic()
        assert polled.consume(1000, 0) == []
        assert time.monotonic() - began < 0.1


def test_an_offset_out_of_range_is_one_error_and_then_the_partition_is_dead_until_assigned_again(broker):
    topic = topic_of(broker, records=10)
    with consumer(broker) as polled:
        polled.incremental_assign([TopicPartition(topic, 0, 50)])
        (error,) = poll_until(polled, bool)
        assert error.error().code() == KafkaError._AUTO_OFFSET_RESET
        assert (error.topic(), error.partition()) == (topic, 0)
        broker.produce_many(topic, [b"x"] * 60, partition=0)
        assert poll_for(polled, 1) == []
        polled.incremental_unassign([TopicPartition(topic, 0)])
        polled.incremental_assign([TopicPartition(topic, 0, 50)])
        assert poll_until(polled, lambda came: len(came) == 20)[0].offset() == 50


def test_another_id_of_a_topic_is_heard_of_before_any_record_of_it_and_it_is_read_on_without_an_error(kafka):
    topic = f"edge-{uuid.uuid4().hex[:8]}"
    first = kafka.create_topic(topic)
    ids = IdsRead(SparingLogger(logging.getLogger("nobody")))
    polled = Consumer(ids.heard(client_config(kafka).consumer(fetch_wait_ms=20)))
    try:
        polled.incremental_assign([TopicPartition(topic, 0, 0)])  # where any topic of that name can be read
        poll_until(polled, lambda _: not ids.reads(topic, "another"))
        assert ids.reads(topic, first)
        kafka.delete_topic(topic)
        second = kafka.create_topic(topic)
        kafka.produce_many(topic, [b"new"], partition=0)
        assert [message.value() for message in poll_until(polled, bool)] == [b"new"]
        assert ids.reads(topic, second)
        assert not ids.reads(topic, first)
    finally:
        polled.close()


def test_assigned_again_at_another_offset_exactly_what_follows_it_comes_and_others_are_not_disturbed(broker):
    topic, other = topic_of(broker, records=2000), topic_of(broker, records=2000)
    with consumer(broker) as polled:
        polled.incremental_assign([TopicPartition(topic, 0, 0), TopicPartition(other, 0, 0)])
        came = poll_until(polled, lambda came: len(came) > 100)
        polled.incremental_unassign([TopicPartition(topic, 0)])
        polled.incremental_assign([TopicPartition(topic, 0, 7)])
        rest = poll_until(polled, lambda rest: sum(message.topic() == topic for message in rest) >= 1993)
        assert [message.offset() for message in rest if message.topic() == topic] == list(range(7, 2000))
        rest += poll_until(polled, lambda more: sum(message.topic() == other for message in came + rest + more) >= 2000)
        assert [message.offset() for message in came + rest if message.topic() == other] == list(range(2000))


def test_after_unassigning_nothing_comes_of_what_was_queued(broker):
    topic = topic_of(broker, records=3000)
    with consumer(broker) as polled:
        polled.incremental_assign([TopicPartition(topic, 0, 0)])
        poll_until(polled, bool)
        polled.incremental_unassign([TopicPartition(topic, 0)])
        assert poll_for(polled, 0.5) == []


def test_there_is_no_position_between_an_assignment_and_its_first_record(broker):
    """So a position never names an offset whose records did not come: not one that an earlier assignment left."""
    topic = topic_of(broker, records=100)
    with consumer(broker) as polled:
        polled.incremental_assign([TopicPartition(topic, 0, 0)])
        poll_until(polled, lambda came: len(came) == 100)
        assert position(polled, topic) == 100
        for _ in range(5):
            polled.incremental_unassign([TopicPartition(topic, 0)])
            polled.incremental_assign([TopicPartition(topic, 0, 5)])
            for _ in range(5):
                assert position(polled, topic) < 0
                time.sleep(0.005)  # it fetches meanwhile
            first = poll_until(polled, bool)
            assert position(polled, topic) == first[-1].offset() + 1


def test_a_position_is_never_ahead_of_what_was_taken(broker):
    topic = topic_of(broker, records=5000)
    with consumer(broker) as polled:
        polled.incremental_assign([TopicPartition(topic, 0, 0)])
        taken = 0
        while taken < 5000:
            message = polled.poll(0.02)
            if message is not None:
                taken = ([message, *polled.consume(7, 0)])[-1].offset() + 1
                assert position(polled, topic) == taken


def test_a_position_moves_over_transaction_markers_also_where_no_record_comes(kafka):
    topic = topic_of(kafka, records=1)
    with consumer(kafka) as polled:
        polled.incremental_assign([TopicPartition(topic, 0, 0)])
        poll_until(polled, bool)
        with kafka.transaction() as transaction:
            transaction.produce(topic, b"x", partition=0)
        poll_until(polled, bool)
        poll_until(polled, lambda _: position(polled, topic) == 3)
        aborted = kafka.transaction()
        aborted.produce(topic, b"x", partition=0)
        aborted.abort()
        assert poll_until(polled, lambda _: position(polled, topic) == 5) == []


def test_an_open_transaction_holds_back_what_comes_after_it(kafka):
    topic = topic_of(kafka)
    open_one = kafka.transaction()
    open_one.produce(topic, b"open", partition=0)
    kafka.produce(topic, b"plain", partition=0)
    with consumer(kafka) as polled:
        polled.incremental_assign([TopicPartition(topic, 0, 0)])
        assert poll_for(polled, 0.5) == []
        open_one.commit()
        assert [message.value() for message in poll_until(polled, lambda came: len(came) == 2)] == [b"open", b"plain"]


def test_the_end_of_a_partition_names_the_offset_after_all_that_came_markers_included(kafka):
    topic = topic_of(kafka, records=3)
    aborted = kafka.transaction()
    aborted.produce(topic, b"x", partition=0)
    aborted.abort()
    with consumer(kafka, **{"enable.partition.eof": True}) as polled:
        polled.assign([TopicPartition(topic, 0, 0)])
        end = poll_until(polled, lambda came: any(message.error() for message in came))[-1]
        assert end.error().code() == KafkaError._PARTITION_EOF
        assert end.offset() == 5


def test_what_a_consumer_is_asked_about_topics_makes_none(broker):
    absent = f"edge-{uuid.uuid4().hex[:8]}"
    with consumer(broker) as polled:
        for _ in range(3):
            listed = polled.list_topics(absent, timeout=SECONDS).topics[absent]
            assert listed.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
        polled.incremental_assign([TopicPartition(absent, 0, 0)])
        with suppress(KafkaException):
            polled.offsets_for_times([TopicPartition(absent, 0, OFFSET_END)], timeout=1)
        poll_for(polled, 1)
    assert absent not in broker.topics()


def test_a_topic_looked_up_after_it_was_assigned_is_read_at_once(kafka):
    topics = [topic_of(kafka, records=1) for _ in range(5)]
    with consumer(kafka) as polled:
        polled.incremental_assign([TopicPartition(topics[0], 0, 0)])
        poll_until(polled, bool)
        polled.list_topics(topics[0], timeout=SECONDS)
        waited = []
        for topic in topics[1:]:
            began = time.monotonic()
            polled.incremental_assign([TopicPartition(topic, 0, 0)])
            polled.list_topics(topic, timeout=SECONDS)
            poll_until(polled, bool)
            waited.append(time.monotonic() - began)
        assert min(waited) < 0.3, waited


def test_topics_whose_offsets_were_asked_for_after_they_were_assigned_are_read_at_once(kafka):
    topics = [topic_of(kafka, records=1) for _ in range(9)]
    with consumer(kafka) as polled:
        polled.incremental_assign([TopicPartition(topics[0], 0, 0)])
        poll_until(polled, bool)
        waited = []
        for pair in (topics[1:3], topics[3:5], topics[5:7], topics[7:9]):
            began = time.monotonic()
            polled.incremental_assign([TopicPartition(topic, 0, 0) for topic in pair])
            polled.offsets_for_times([TopicPartition(topic, 0, OFFSET_END) for topic in pair], timeout=SECONDS)
            poll_until(polled, lambda came: len(came) == 2)
            waited.append(time.monotonic() - began)
        assert min(waited) < 0.3, waited


def test_one_that_is_assigned_already_or_not_at_all_is_refused(broker):
    """So the thread keeps book of what is assigned, and never asks twice."""
    topic = topic_of(broker)
    with consumer(broker) as polled:
        polled.incremental_assign([TopicPartition(topic, 0, 0)])
        with pytest.raises(KafkaException) as conflict:
            polled.incremental_assign([TopicPartition(topic, 0, 0)])
        assert conflict.value.args[0].code() == KafkaError._CONFLICT
        polled.incremental_unassign([TopicPartition(topic, 0)])
        with pytest.raises(KafkaException) as invalid:
            polled.incremental_unassign([TopicPartition(topic, 0)])
        assert invalid.value.args[0].code() == KafkaError._INVALID_ARG


def test_without_brokers_polls_return_nothing_errors_go_to_their_callback_and_closing_is_quick():
    errors: list[int] = []
    polled = Consumer(
        {
            "bootstrap.servers": "127.0.0.1:1",
            "group.id": "edge",
            "log_level": 0,
            "error_cb": lambda error: errors.append(error.code()),
        }
    )
    polled.incremental_assign([TopicPartition("edge", 0, 0)])
    assert poll_for(polled, 0.5) == []
    assert KafkaError._ALL_BROKERS_DOWN in errors
    began = time.monotonic()
    with pytest.raises(KafkaException):
        polled.list_topics("edge", timeout=0.1)
    polled.close()
    assert time.monotonic() - began < 0.8
