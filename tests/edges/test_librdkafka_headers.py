"""What `kafka/records.py` assumes of confluent_kafka about a header whose name is not UTF-8."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from kafka_chat.chat.message import LeftOut
from kafka_chat.kafka.records import chat_record, envelope
from tests.support.raw_produce import RawRecord, produce_raw

if TYPE_CHECKING:
    from tests.support.brokers import KafkaCluster
    from tests.support.chats import Chats

SECONDS = 30.0


def received(kafka: KafkaCluster, topic: str) -> Message:
    """The first record of a topic."""
    consumer = Consumer({**kafka.client("headers"), "group.id": "headers", "auto.offset.reset": "error"})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            found = consumer.poll(1.0)
            if found is not None and found.error() is None:
                return found
    finally:
        consumer.close()
    raise AssertionError(f"no record came within {SECONDS:g} s")


def test_headers_raises_where_a_name_is_not_utf8_and_then_has_all_the_others(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("room")
    kafka.create_topic(topic)
    headers = [(b"a", b"1"), (b"\xdf", b"x"), (b"b", None), (b"\xff\xfe", None), ("ü".encode(), b"\xff"), (b"", b"")]
    produce_raw(kafka.bootstrap, topic, [RawRecord(value=b"v", key=b"k", headers=headers, time_ms=5)])
    message = received(kafka, topic)
    with pytest.raises(SystemError):  # once it raises nothing any more, `_headers_again` can go
        message.headers()
    record = chat_record(received(kafka, topic), 0)
    assert (record.value, record.key, record.time_ms, record.unreadable) == (b"v", b"k", 5, (LeftOut.HEADER_NAME,))
    shown = [("a", b"1"), ("\ufffd", b"x"), ("b", None), ("\ufffd", None), ("ü", b"\xff"), ("", b"")]
    assert record.headers == shown
    assert envelope(message) == (None, topic, 0, 0)


def test_of_over_100_000_headers_none_is_given(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("room")
    kafka.create_topic(topic)
    produce_raw(kafka.bootstrap, topic, [RawRecord(value=b"v", headers=[(b"", None)] * 100_001)])
    assert not received(kafka, topic).headers()
