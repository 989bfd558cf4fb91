"""What the publisher assumes of librdkafka's Producer: it connects to every broker before the first record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer

from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.settings.model import KafkaSettings
from tests.support.broker_client import wait_until
from tests.support.deadlines import HANG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

BROKERS = 3


@pytest.fixture
def first_of_three() -> Iterator[str]:
    """The address of one broker of a mock cluster."""
    owner = Consumer({"group.id": "owner", "client.id": "test-three-brokers", "test.mock.num.brokers": BROKERS, "log_level": 3})
    try:
        node = owner.list_topics(timeout=HANG_SECONDS).brokers[1]
        yield f"{node.host}:{node.port}"
    finally:
        owner.close()


@pytest.mark.parametrize("sparse", [False, True])
def test_it_is_connected_to_each_broker_and_would_not_be_if_its_connections_were_sparse(first_of_three: str, *, sparse: bool) -> None:
    states: dict[int, str] = {}
    told = 0

    def take(statistics: str) -> None:
        nonlocal told
        brokers = json.loads(statistics)["brokers"].values()
        states.update({broker["nodeid"]: broker["state"] for broker in brokers if broker["nodeid"] > 0})
        told += len(states) == BROKERS

    more = {"statistics.interval.ms": 50, "stats_cb": take, "enable.idempotence": True}
    config = ClientConfig(KafkaSettings(bootstrap_servers=first_of_three)).producer(**more)
    producer = Producer({**config, "enable.sparse.connections": True} if sparse else config)

    def all_up() -> bool:
        producer.poll(0.05)
        return [*states.values()] == ["UP"] * BROKERS

    def told_often() -> bool:
        producer.poll(0.05)
        return told >= 10

    try:
        if sparse:  # one that is connected to for the producer's id, and perhaps the one that is known from the beginning
            wait_until(told_often, HANG_SECONDS, "statistics of three brokers")
            assert not all_up()
        else:
            wait_until(all_up, HANG_SECONDS, "three connections")
    finally:
        producer.close()
