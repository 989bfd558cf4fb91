"""An hour's worth of looks at 500 chats, one after the other, leaves this process as large as it was."""

from __future__ import annotations

import gc
from concurrent.futures import Future
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Uuid
from confluent_kafka.admin import AdminClient, NewTopic, TopicDescription

from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.errors import BrokerUnreachable
from kafka_chat.kafka.lookup import open_lookup
from tests.support.brokers import KafkaCluster
from tests.support.chats import Chats
from tests.support.tails import client_config

from .scale import FULL, tell

LOOKS = 3_600 if FULL else 24
TOPICS = 500 if FULL else 40
WARM = LOOKS // 6  # what librdkafka and the allocator make once
MOST_KIB = 1_024  # what RSS may grow by
PAGE_KIB = 4


@pytest.mark.deadline(1_800)
async def test_an_hour_of_looks_leaves_the_process_as_large_as_it_was(kafka: KafkaCluster, chats: Chats) -> None:
    topics = [chats.topic(f"room{number}") for number in range(TOPICS)]
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for made in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics]).values():
        made.result()
    absent = [chats.topic(f"absent{number}") for number in range(20)]
    async with open_lookup(client_config(kafka)) as lookup:
        sizes: list[int] = []
        objects, unanswered = 0, 0
        for number in range(LOOKS):
            if number == WARM:
                objects = _left_of_looks()
                gc.disable()  # so that circles show
            if number >= WARM:
                sizes.append(_rss_kib())
            try:
                await lookup.describe([*topics, *absent])
                await lookup.last_stable_offsets([PartitionKey(topic, "", 0) for topic in absent])
            except BrokerUnreachable:
                unanswered += 1  # a busy machine
        more = _left_of_looks() - objects
        gc.enable()
    # Python takes memory from the system by the MiB and gives it back so: from one look to the next it is 1 or 2 MiB more or less.
    # A leak raises the least of it.
    third = len(sizes) // 3
    grown = min(sizes[-third:]) - min(sizes[:third])
    tell("looks", looks=LOOKS - WARM, topics=TOPICS, grown_kib=grown, objects=more, unanswered=unanswered)
    assert more < TOPICS, "something is left of each look"
    assert not FULL or grown <= MOST_KIB


def _left_of_looks() -> int:
    return sum(type(thing) in (Uuid, Future, TopicDescription, KafkaException) for thing in gc.get_objects())


def _rss_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB
