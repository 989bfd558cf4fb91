"""The id of the topic that a Consumer reads, from librdkafka's log; the operator sees the same lines as without that."""

from __future__ import annotations

import logging

import pytest

from kafka_chat.kafka.connect import SparingLogger
from kafka_chat.kafka.ids_read import TOPICS_NOTED, IdsRead

TEMPLATE = "%s [%s] %s"  # librdkafka's, by confluent_kafka


def say(ids: IdsRead, line: str, *, level: int = logging.DEBUG, facility: str = "METADATA") -> None:
    ids.log(level, TEMPLATE, facility, "kafka_chat#consumer-4", f"[thrd:main]: {line}")


def heard(**properties: str) -> IdsRead:
    ids = IdsRead(SparingLogger(logging.getLogger("kafka_chat.kafka")))
    ids.heard(properties)
    return ids


def test_until_a_line_says_another_id_it_reads_what_is_wanted():
    ids = heard()
    assert ids.reads("room", "any")
    say(ids, "Topic room changed id from AAAAAAAAAAAAAAAAAAAAAA to qlQIH/2NTWGvi3CTpfFtzg")
    assert ids.reads("room", "qlQIH/2NTWGvi3CTpfFtzg")
    assert not ids.reads("room", "S72g5JeqQ0Gj4AF1nd+7Og")
    assert ids.reads("room2", "S72g5JeqQ0Gj4AF1nd+7Og")
    say(ids, "Topic room changed id from qlQIH/2NTWGvi3CTpfFtzg to S72g5JeqQ0Gj4AF1nd+7Og")
    assert ids.reads("room", "S72g5JeqQ0Gj4AF1nd+7Og")


def test_the_ids_of_many_topics_take_so_much_memory_and_no_more():
    ids = heard()
    for number in range(TOPICS_NOTED + 1):
        say(ids, f"Topic room{number} changed id from A to B")
    assert len(ids._ids) == 1
    assert not ids.reads(f"room{TOPICS_NOTED}", "A")


def test_the_operator_sees_no_debug_line_unless_he_has_asked_for_them(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, "kafka_chat.kafka")
    ids = heard()
    say(ids, "Requesting metadata for 1/1 topics")
    assert not caplog.records
    say(ids, "Connect failed", level=logging.WARNING, facility="FAIL")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    say(heard(debug="broker"), "Requesting metadata for 1/1 topics", facility="METADATA2")
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.DEBUG]


def test_what_the_operator_asks_librdkafka_to_say_stays():
    ids = IdsRead(SparingLogger(logging.getLogger("kafka_chat.kafka")))
    assert ids.heard({"client.id": "x"}) == {"client.id": "x", "logger": ids, "debug": "metadata"}
    assert ids.heard({"debug": "broker,topic"})["debug"] == "broker,topic,metadata"
