"""Reads the records of one partition from an offset on, with their keys; not for chat messages."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from confluent_kafka import Consumer, KafkaError, TopicPartition

from ..chat.resume_cursor import NO_EPOCH
from ..errors import BrokerUnreachable
from .connect import broker_error, of_the_group
from .records import envelope, keyed_record, leader_epoch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from .connect import ClientConfig
    from .records import KeyedAt

POLL_SECONDS = 0.25  # a record ends a poll at once; this is how long a cancel waits
FETCH_WAIT_MS = 500  # nothing else uses this connection, and a record ends a fetch at once
RECORDS_A_POLL = 300  # folded in 2 ms; nothing else runs meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The result of one poll.

    Attributes:
        records: in order; empty if only the position has moved.
        next: the position after them and after transaction markers.
        lost: whether the position is out of range; then nothing more comes.
        problem: why the broker refused to read.
        epoch: the leader epoch of the last record so far; `NO_EPOCH` if none is known.
    """

    records: Sequence[KeyedAt]
    next: int
    lost: bool
    problem: str | None
    epoch: int


class RecordReader:
    """A Consumer of one partition, polled in a thread by one call at a time."""

    def __init__(self, config: ClientConfig, topic: str, partition: int, start: int, epoch: int) -> None:
        self.start = start
        self._next = start
        self._epoch = epoch
        # With the epoch the Consumer validates its position when the leader changes.
        self._start_at = TopicPartition(topic, partition, start, leader_epoch=epoch)
        self._consumer = Consumer(
            {
                **config.consumer(fetch_wait_ms=FETCH_WAIT_MS),
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": 4_096,  # counts values only; …
                "queued.min.messages": 1_000,  # … this bounds large keys
                "fetch.max.bytes": 4 << 20,  # of a broker's response, in addition to the queue
                "fetch.queue.backoff.ms": 10,  # by default librdkafka pauses for a second when the queue is full
                "error_cb": _ignore,
            }
        )
        self._consumer.assign([self._start_at])
        self._thread = trio.CapacityLimiter(1)

    async def read(self) -> Piece:
        """Wait for the next piece and return it; a cancel takes at most `POLL_SECONDS`."""
        return await trio.to_thread.run_sync(self._poll_for_news, limiter=self._thread)

    def close(self) -> None:
        """Close the Consumer; takes milliseconds."""
        self._consumer.close()

    def _poll_for_news(self) -> Piece:
        """Poll until there is something to return: waking a task in vain ten times a second costs more than the polls."""
        while True:
            trio.from_thread.check_cancelled()
            before = self._next
            piece = self._poll()
            if piece.next > before or piece.lost or piece.problem:
                return piece

    def _poll(self) -> Piece:
        first = self._consumer.poll(POLL_SECONDS)
        records: list[KeyedAt] = []
        lost, problem = False, None
        # poll() and then consume(), because consume() waits for the full number of records.
        for message in [] if first is None else [first, *self._consumer.consume(RECORDS_A_POLL, 0)]:
            error, _, _, offset = envelope(message)
            if error is None and offset >= 0:
                record = keyed_record(message, offset)
                if record is not None:
                    records.append(record)
                self._next, self._epoch = offset + 1, leader_epoch(message)
            elif error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
                lost = True
            elif error is not None and error.code() != KafkaError._PARTITION_EOF and not of_the_group(error):
                doing = f"reading {self._start_at.topic}/{self._start_at.partition}"
                refusal = broker_error(error, doing)
                problem = problem if isinstance(refusal, BrokerUnreachable) else str(refusal)  # an absent broker comes back
        # It is past transaction markers and compacted records, too.
        self._next = max(self._next, self._consumer.position([self._start_at])[0].offset)
        return Piece(records=records, next=self._next, lost=lost, problem=problem, epoch=self._epoch)


@asynccontextmanager
async def open_record_reader(
    config: ClientConfig, topic: str, partition: int, start: int, epoch: int = NO_EPOCH
) -> AsyncIterator[RecordReader]:
    """Read a partition while the block runs; the brokers may be away.

    Args:
        config: how to reach the brokers.
        topic: an existing one.
        partition: its partition.
        start: the first offset.
        epoch: the leader epoch of the record before it; `NO_EPOCH` if none is known.
    """
    reader = RecordReader(config, topic, partition, start, epoch)
    try:
        yield reader
    finally:
        reader.close()


def _ignore(error: KafkaError) -> None:
    """Ignore errors: the lookups report that brokers are away. Without a callback librdkafka would log every error."""
