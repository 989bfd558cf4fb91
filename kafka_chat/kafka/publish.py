"""The one producer: a record is in the log on all in-sync replicas, or refused in time.

One of our threads polls the producer for acknowledgements, and ends it when it closes or when a new producer replaces it after a
fatal error. The trio thread produces records under the lock that also guards the replacement, so never to a producer that is
being ended. The producer gives up a record after `GIVE_UP_MS`, before the waiting request does, so it never writes a record of a
request that was already refused. One case remains: a broker takes a record and then does not answer. Then it is unknown whether
it is written; transactions do not help, since their commit can stay unanswered in the same way.
"""

from __future__ import annotations

import threading
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import trio
from confluent_kafka import KafkaError, KafkaException, Producer

from ..delivery.ports import KeyedRecord, Published
from ..errors import MAY_BE_WRITTEN, BrokerError, BrokerUnreachable, TooLarge
from ..nursery import open_tasks
from .connect import broker_error, not_made

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from confluent_kafka import Message

    from .connect import ClientConfig, Property

    Acknowledged = Callable[[KafkaError | None, Message], None]

GIVE_UP_MS = 2_500  # librdkafka checks once a second, so `WRITE_SECONDS` at most; measured 3.0
LINGER_MS = 5  # a hundred records are produced in 0.3 ms, so those of one call form one batch; delays a send little
POLL_SECONDS = 0.1  # an acknowledgement ends a poll at once; this is how long closing waits
REPLACE_SECONDS = 1.0  # how soon, at most, a failed producer is replaced; the next may fail as soon as it connects
FLUSH_SECONDS = 0.3  # for records in flight at closing, for which no request waits any more
RECORD_BYTES = (64 << 20) + 65_536  # above any `limits.message_bytes`, so that the broker's own limit decides
ANY_PARTITION = -1

# A broker may have taken the record: it did not answer in time, or not enough replicas have what it has.
_UNSURE = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._PURGE_INFLIGHT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    }
)
_PURGED = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})


class KafkaPublisher:
    """Implements the port `Publisher` with one idempotent producer.

    Call it in the trio thread only.
    """

    def __init__(self, config: ClientConfig, *, make: Callable[[dict[str, Property]], Producer] = Producer) -> None:
        """Make the producer.

        Args:
            config: how to reach the brokers.
            make: makes a producer from its properties.
        """
        self._make = make
        self._lock = threading.Lock()  # held while records are produced, and during a replacement
        self._token = trio.lowlevel.current_trio_token()
        self._properties: dict[str, Property] = config.producer(
            **{
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": GIVE_UP_MS,
                "linger.ms": LINGER_MS,
                "message.max.bytes": RECORD_BYTES,
                "allow.auto.create.topics": config.embedded,
                "error_cb": _ignore,
            }
        )
        self._spent = False
        self._spent_by = ""  # the last fatal error
        self._replaced_at = float("-inf")
        self._closing = False
        self._producer: Producer | None  # None once closing
        try:
            self._producer = make(self._properties)
        except KafkaException as error:
            raise not_made(error) from error

    async def publish(self, topic: str, record: KeyedRecord, *, partition: int | None = None) -> Published:
        """Produce one record; see `Publisher`."""
        return await self._acknowledged(topic, [record], ANY_PARTITION if partition is None else partition)

    async def publish_together(self, topic: str, records: Sequence[KeyedRecord], *, partition: int) -> int:
        """Produce records as one batch; see `Publisher`."""
        return (await self._acknowledged(topic, records, partition)).offset

    async def run(self) -> None:
        """Poll for acknowledgements until `close` is called. Cancelling does not end it earlier."""
        await trio.to_thread.run_sync(self._poll, limiter=trio.CapacityLimiter(1))

    def close(self) -> None:
        """End `run`, within a second."""
        self._closing = True

    async def _acknowledged(self, topic: str, records: Sequence[KeyedRecord], partition: int) -> Published:
        """Produce records in one step, wait until all are acknowledged or refused, and return the last one's partition and offset."""
        waiting = _Waiting(len(records))
        doing = f"writing to {topic}"

        def acknowledged(error: KafkaError | None, message: Message) -> None:
            # Called in the polling thread; must not raise.
            self._token.run_sync_soon(waiting.one_less, error, message.partition() or 0, message.offset() or 0)

        refusals: list[KafkaError] = []
        with self._lock:
            if self._spent:
                raise BrokerError(f"{doing} failed: {self._spent_by}", topic=topic)
            if self._producer is None:
                raise BrokerUnreachable(f"{doing} failed: the service is shutting down; try again later", topic=topic)
            try:
                refusals = _hand_over(self._producer, topic, records, partition, acknowledged)
            except KafkaException as error:
                raise broker_error(error.args[0], doing, topic=topic) from error
        for refusal in refusals:
            waiting.one_less(refusal, partition, -1)
        await waiting.over.wait()
        if waiting.error is not None and waiting.error.code() in _PURGED and self._spent_by and not self._closing:
            unsure = MAY_BE_WRITTEN if waiting.error.code() in _UNSURE else ""
            raise BrokerError(f"{doing} failed: {self._spent_by}{unsure}", topic=topic)
        if waiting.error is not None:
            raise _ours(waiting.error, doing, topic)
        return Published(topic, waiting.partition, waiting.offset)

    def _poll(self) -> None:
        """Poll until closing; then end the producer. Only this thread replaces the producer, so it may use it without the lock."""
        while not self._closing and self._producer is not None:
            try:
                self._producer.poll(POLL_SECONDS)
            except KafkaException as error:  # confluent_kafka has no callback for fatal errors
                if not error.args[0].fatal():
                    raise
                self._spent, self._spent_by = True, error.args[0].str()
            if self._spent and time.monotonic() - self._replaced_at >= REPLACE_SECONDS:
                self._replace(self._make(self._properties))
        self._replace(None)

    def _replace(self, new: Producer | None) -> None:
        """Replace the producer: after a fatal error (lost sequence numbers, no permission) the old one accepts nothing more."""
        with self._lock:  # the old one gets no records from here on
            old, self._producer = self._producer, new
            self._spent, self._replaced_at = False, time.monotonic()
        if old is not None:
            _end(old)


def _hand_over(
    producer: Producer, topic: str, records: Sequence[KeyedRecord], partition: int, acknowledged: Acknowledged
) -> list[KafkaError]:
    """Hand records over to librdkafka; return why some are refused at once."""
    if len(records) == 1 and records[0].headers:  # a batch takes no headers
        [(key, value, headers)] = records
        try:
            producer.produce(topic, value, key, partition, acknowledged, headers=list(headers))
        except KafkaException as error:
            return [error.args[0]]
        except BufferError:
            return [KafkaError(KafkaError._QUEUE_FULL)]
        return []
    # librdkafka takes them one by one, but within its linger time. It reports records that it does not take.
    handed: list[dict[str, object]] = [{"key": record.key, "value": record.value, "callback": acknowledged} for record in records]
    producer.produce_batch(topic, handed, partition=partition)
    refused = (record.get("_error") for record in handed)
    return [refusal for refusal in refused if isinstance(refusal, KafkaError)]


class _Waiting:
    """The acknowledgements for which one call waits.

    Attributes:
        over: set when all have come.
        error: the first error.
        partition: the last record's.
        offset: the highest.
    """

    def __init__(self, number: int) -> None:
        self.over = trio.Event()
        self.error: KafkaError | None = None
        self.partition = -1
        self.offset = -1
        self._number = number

    def one_less(self, error: KafkaError | None, partition: int, offset: int) -> None:
        """Count one acknowledgement or refusal."""
        if error is None:
            self.partition, self.offset = partition, max(self.offset, offset)
        elif self.error is None:
            self.error = error
        self._number -= 1
        if self._number == 0:
            self.over.set()


def _end(producer: Producer) -> None:
    """End a producer within half a second; calls that still wait get an error."""
    with suppress(KafkaException):  # the next call raises a pending fatal error; here it no longer matters
        producer.flush(FLUSH_SECONDS)
    producer.purge()
    with suppress(KafkaException):
        producer.poll(0)
    producer.close()


def _ignore(error: KafkaError) -> None:
    """Ignore errors: the lookups report that brokers are away. Without a callback librdkafka would log every error."""


def _ours(error: KafkaError, doing: str, topic: str) -> BrokerError | TooLarge:
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return TooLarge(f"{doing} failed: the topic does not accept a record of that size (max.message.bytes)")
    if error.code() in _UNSURE:
        return BrokerUnreachable(f"{doing} was not acknowledged: {error.str()} ({error.name()}){MAY_BE_WRITTEN}", topic=topic)
    if error.code() == KafkaError._QUEUE_FULL or error.code() in _PURGED:
        return BrokerUnreachable(f"{doing} failed: {error.str()}; try again later", topic=topic)
    return broker_error(error, doing, topic=topic)


@asynccontextmanager
async def open_publisher(config: ClientConfig) -> AsyncIterator[KafkaPublisher]:
    """Make a publisher available while the block runs; the brokers may be away.

    Raises:
        SettingsError: librdkafka rejects `kafka.properties`.
    """
    publisher = KafkaPublisher(config)
    async with open_tasks() as nursery:
        nursery.start_soon(publisher.run)
        try:
            yield publisher
        finally:
            publisher.close()
