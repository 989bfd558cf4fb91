"""A broker inside this process, for trying things out: librdkafka's mock cluster.

It keeps about 5 MB per partition, and loses everything when the process ends. It differs from Kafka: topics have four
partitions and are created by the first record; they are never deleted or recreated, and have no ids; there is no
compaction; there are no offsets by time; records of an open transaction are visible at once.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from confluent_kafka import Consumer

from ..nursery import open_tasks
from .connect import SparingLogger, broker_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

START_SECONDS = 10.0  # it takes 60 ms
LOG_SECONDS = 1.0


@asynccontextmanager
async def open_embedded_broker() -> AsyncIterator[str]:
    """Run the broker while the block runs.

    Yields:
        The `bootstrap.servers` of its clients.
    """
    limiter = trio.CapacityLimiter(1)
    broker, address = await trio.to_thread.run_sync(_start, limiter=limiter)
    try:
        async with open_tasks() as nursery:
            nursery.start_soon(_run_log, broker)
            yield address
    finally:
        with trio.CancelScope(shield=True):  # milliseconds
            await trio.to_thread.run_sync(broker.close, limiter=limiter)


async def _run_log(broker: Consumer) -> None:
    """Write its log lines and reports, until cancelled; without polling they pile up."""
    while True:
        broker.poll(0)
        await trio.sleep(LOG_SECONDS)


def _start() -> tuple[Consumer, str]:
    # The cluster lives in the client that asked for it, and ends with it.
    # By default librdkafka writes its log to descriptor 2.
    logger = SparingLogger(logging.getLogger("kafka_chat.kafka"))
    broker = Consumer(
        {
            "group.id": "kafka_chat",
            "client.id": "kafka_chat-embedded-broker",
            "test.mock.num.brokers": 1,
            "log_level": 3,
            "logger": logger,
            "error_cb": lambda error: logger.log(logging.WARNING, "the embedded broker says: %s", error.str()),
        }
    )
    with broker_errors("starting the embedded broker"):
        brokers = broker.list_topics(timeout=START_SECONDS).brokers
    return broker, ",".join(f"{node.host}:{node.port}" for node in brokers.values())
