"""What `publish_together` assumes of librdkafka: records produced at once are one batch, which a broker appends whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from confluent_kafka import Producer

from kafka_chat.kafka.publish import LINGER_MS

if TYPE_CHECKING:
    from tests.support.brokers import KafkaCluster
    from tests.support.chats import Chats

RECORDS = 100


def test_a_hundred_records_handed_over_at_once_are_one_batch(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("room"))
    counts: list[int] = []

    def note(statistics: str) -> None:
        window = json.loads(statistics)["topics"].get(chats.topic("room"), {}).get("batchcnt", {})
        if window.get("cnt"):
            counts.append(window["p50"])

    config = {"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True, "linger.ms": LINGER_MS, "statistics.interval.ms": 100}
    producer = Producer({**config, "stats_cb": note})
    for _ in range(20):
        messages = [{"key": b"%d" % number, "value": b"v" * 100} for number in range(RECORDS)]
        assert producer.produce_batch(chats.topic("room"), messages, partition=0) == RECORDS
        assert producer.flush(20) == 0
    for _ in range(50):
        producer.poll(0.1)
        if counts:
            break
    producer.close()
    assert counts
    # The median, for a busy machine may stop the thread for longer than it lingers; and librdkafka's histogram rounds.
    assert min(counts) >= 0.95 * RECORDS
