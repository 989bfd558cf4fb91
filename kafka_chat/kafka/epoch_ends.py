"""Asks brokers where a leader epoch ends in a log: records after that end are not those of the epoch.

Kafka has a request for it (`OffsetForLeaderEpoch`), but librdkafka has no call. However, librdkafka validates the position of a
`seek` with an epoch. With an offset beyond any log the validation fails, and the error's text says where the epoch ends.
`tests/edges` fails when that changes.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from ..errors import BrokerUnreachable
from .records import envelope

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ..chat.partition_key import PartitionKey
    from .connect import ClientConfig

POLL_SECONDS = 0.1  # how long a cancel waits
FETCH_WAIT_MS = 10
AT_A_TIME = 4  # concurrent requests, each with a thread and a Consumer; needed only after elections
BEYOND = 1 << 60  # an offset that no log has
NO_END = 1 << 62  # the end of an epoch that no broker knows: nothing contradicts it

_END = re.compile(r"broker end offset is (-?\d+)")


class EpochEnds:
    """Makes these requests, each with a Consumer; between elections there are none.

    Args:
        config: configures the Consumers.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._threads = trio.CapacityLimiter(AT_A_TIME)

    async def ask(self, keys: Collection[PartitionKey], epoch: int) -> Mapping[PartitionKey, int]:
        """Return where an epoch ends in each partition: after the last record of this epoch or an earlier one; see `Lookup.epoch_ends`.

        Raises:
            BrokerUnreachable: no broker answered about any of them.
        """
        found = await trio.to_thread.run_sync(self._ask, keys, epoch, limiter=self._threads)
        if keys and not found:
            raise BrokerUnreachable(f"asking where leader epoch {epoch} ends failed: no broker answered")
        return found

    def _ask(self, keys: Collection[PartitionKey], epoch: int) -> dict[PartitionKey, int]:
        by_partition = {(key.topic, key.partition): key for key in keys}
        ends: dict[PartitionKey, int] = {}
        until = time.monotonic() + self._config.timeouts.answer_seconds
        consumer = Consumer(self._config.consumer(fetch_wait_ms=FETCH_WAIT_MS, error_cb=_ignore))
        try:
            consumer.assign([TopicPartition(*name, BEYOND) for name in by_partition])
            for name in by_partition:
                with suppress(KafkaException):  # without an answer it is asked again
                    consumer.seek(TopicPartition(*name, BEYOND, leader_epoch=epoch))
            while len(ends) < len(by_partition) and time.monotonic() < until:
                trio.from_thread.check_cancelled()
                message = consumer.poll(POLL_SECONDS)
                if message is None:
                    continue
                error, topic, partition, _ = envelope(message)
                key = by_partition.get((topic, partition))  # type: ignore[arg-type]  # of an error without
                end = None if error is None or key is None else end_told(error)
                if key is not None and end is not None:
                    ends[key] = end
        finally:
            consumer.close()
        return ends


def end_told(error: KafkaError) -> int | None:
    """Return the end of an epoch from an error's text; None if the error is about something else."""
    if error.code() != KafkaError._AUTO_OFFSET_RESET:
        return None
    said = _END.search(error.str())
    if said is not None:
        return int(said[1]) if int(said[1]) >= 0 else NO_END
    # Sometimes an error that the assigned position is out of range comes first.
    logging.getLogger("kafka_chat.kafka").debug("not the end of an epoch: %s", error.str())
    return None


def _ignore(error: KafkaError) -> None:
    """Ignore errors: the lookups report that brokers are away. Without a callback librdkafka would log every error."""
