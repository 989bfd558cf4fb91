"""Kafka as other programs use it: produces records, and reads topics and offsets."""

from __future__ import annotations

import threading
import time
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # confluent_kafka's omission
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # likewise
PARTITION_BY_KEY = -1  # librdkafka's RD_KAFKA_PARTITION_UA
ANSWER_SECONDS = 60.0  # for one question, which takes milliseconds; it ends a hang


class PublishedRecord(NamedTuple):
    """The partition and offset of a record, acknowledged with acks=all."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offsets:
    """The watermarks of one partition.

    Attributes:
        first: the first offset that still exists.
        last_stable: below it everything is committed or aborted.
        high: below it everything is replicated.
    """

    first: int
    last_stable: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A committed record as a consumer sees it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class Broker(ABC):
    """Kafka at an address.

    Every method blocks for as long as the brokers need, a few milliseconds where they are well. In a trio test call the
    quick ones as they are; what takes longer (starting a node) goes through `trio.to_thread.run_sync`.
    """

    embedded: bool
    ports: ClassVar[set[int]] = set()  # of all brokers that tests have talked to: their clients come and go when they like

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.ports.update(int(address.rpartition(":")[2]) for address in bootstrap.split(","))
        self._lock = threading.RLock()  # tests may use it from several threads
        self._renew_producer()
        # A Consumer, for a Producer and an AdminClient that ask for a topic by its name create it.
        self._asker = Consumer({**self.client("asker"), "group.id": f"asker-{uuid.uuid4()}"})
        self._admin = AdminClient({**self.client("admin"), "socket.timeout.ms": int(ANSWER_SECONDS * 1000)})

    def client(self, role: str) -> dict[str, str | int | bool | float]:
        """Return the configuration of a client for this broker, under librdkafka's names."""
        return {
            "bootstrap.servers": self.bootstrap,
            "client.id": f"test-{role}",
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "topic.metadata.refresh.fast.interval.ms": 50,
            "log_level": 0,  # brokers are killed on purpose here; what matters is raised
        }

    def connect(self) -> None:
        """Have all clients connect now, so that a test's first question opens no more files than its second."""
        for client in (self._producer, self._asker, self._admin):
            client.list_topics(timeout=ANSWER_SECONDS)

    def close(self) -> None:
        """Close the clients' connections."""
        with self._lock:
            self._asker.close()

    def _renew_producer(self) -> None:
        config = {"acks": "all", "linger.ms": 0, "enable.idempotence": True, "message.timeout.ms": int(ANSWER_SECONDS * 1000)}
        self._producer = Producer({**self.client("producer"), **config})
        self._met: set[str] = set()

    @abstractmethod
    def create_topic(self, name: str, partitions: int = 1) -> str:
        """Create a topic, and return its id once it can be written and read.

        Args:
            name: of the topic.
            partitions: how many, at least.
        """

    # --- producing

    def produce(
        self,
        topic: str,
        value: bytes | str | None,
        *,
        key: bytes | str | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
        timestamp_ms: int | None = None,
    ) -> PublishedRecord:
        """Produce one record to a topic, and return once it is acknowledged.

        Args:
            topic: made by the broker if it is missing, as brokers do by default; `create_topic` says how it should be.
            value: None is a tombstone.
            key: decides the partition where none is given.
            partition: which.
            headers: of the record.
            timestamp_ms: Unix time; None: now.

        Raises:
            KafkaException: no acknowledgement in time, or the brokers refused it.
        """
        return self.produce_many(topic, [value], key=key, partition=partition, headers=headers, timestamp_ms=timestamp_ms)[0]

    def produce_many(
        self,
        topic: str,
        values: Iterable[bytes | str | None],
        *,
        key: bytes | str | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
        timestamp_ms: int | None = None,
    ) -> list[PublishedRecord]:
        """Produce records to a topic in this order, and return once all are acknowledged."""
        with self._lock:
            producer = self.meet(topic)
            return produce_records(producer, topic, values, key=key, partition=partition, headers=headers, timestamp_ms=timestamp_ms)

    def meet(self, topic: str) -> Producer:
        """Make the producer look up a topic, which creates it if it is missing; return the producer."""
        with self._lock:
            if topic not in self._met:
                # By itself it looks up new topics once a second.
                self._producer.list_topics(topic, timeout=ANSWER_SECONDS)
                self._met.add(topic)
            return self._producer

    # --- looking

    def topics(self) -> dict[str, int]:
        """Return topic -> number of partitions, of all topics that exist. Creates none."""
        with self._lock:
            return {name: len(topic.partitions) for name, topic in self._asker.list_topics(timeout=ANSWER_SECONDS).topics.items()}

    def offsets(self, topic: str, partition: int = 0) -> Offsets:
        """Return the current watermarks of one partition, from its leader."""
        return Offsets(
            first=self._offset(topic, partition, _EARLIEST, IsolationLevel.READ_UNCOMMITTED),
            last_stable=self._offset(topic, partition, _LATEST, IsolationLevel.READ_COMMITTED),
            high=self._offset(topic, partition, _LATEST, IsolationLevel.READ_UNCOMMITTED),
        )

    def _offset(self, topic: str, partition: int, spec: OffsetSpec, isolation: IsolationLevel) -> int:
        where = TopicPartition(topic, partition)

        def ask() -> int:
            futures = self._admin.list_offsets({where: spec}, isolation_level=isolation, request_timeout=ANSWER_SECONDS)
            return int(futures[where].result().offset)

        try:
            return ask()
        except KafkaException:
            # It goes by the partitions and leaders that it has heard of; a full listing tells it of all, and creates none.
            self._admin.list_topics(timeout=ANSWER_SECONDS)
            return ask()

    def records(self, topic: str) -> list[StoredRecord]:
        """Return all committed records of a topic, partition by partition."""
        found: list[StoredRecord] = []
        config = {"group.id": f"reader-{uuid.uuid4()}", "enable.partition.eof": True, "auto.offset.reset": "error", "fetch.wait.max.ms": 10}
        reader = Consumer({**self.client("reader"), **config})
        try:
            for partition in range(self.topics().get(topic, 0)):
                marks = self.offsets(topic, partition)
                found += _read(reader, topic, partition, marks.first, marks.last_stable)
        finally:
            reader.close()
        return found


def produce_records(
    producer: Producer,
    topic: str,
    values: Iterable[bytes | str | None],
    *,
    key: bytes | str | None,
    partition: int | None,
    headers: Sequence[tuple[str, bytes | None]] | None = None,
    timestamp_ms: int | None = None,
) -> list[PublishedRecord]:
    """Produce, wait for all the answers, and return them in the order of `values`."""
    to = PARTITION_BY_KEY if partition is None else partition
    wire_headers: list[tuple[str, str | bytes | None]] | None = None if headers is None else list(headers)
    answers: list[PublishedRecord | KafkaError | None] = []
    left = 0

    def answer(place: int) -> Callable[[KafkaError | None, Message], None]:
        def told(error: KafkaError | None, message: Message) -> None:
            nonlocal left
            left -= 1
            answers[place] = error if error is not None else PublishedRecord(*_place(message))

        return told

    for place, value in enumerate(values):
        answers.append(None)
        left += 1
        while True:
            try:
                producer.produce(topic, value, key, to, answer(place), timestamp=timestamp_ms or 0, headers=wire_headers)
                break
            except BufferError:
                producer.poll(0.1)
    deadline = time.monotonic() + ANSWER_SECONDS + 10
    while left:
        producer.poll(0.2)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{left} of {len(answers)} records for {topic} were not acknowledged within {ANSWER_SECONDS + 10:.0f} s")
    published = []
    for found in answers:
        if not isinstance(found, PublishedRecord):
            raise KafkaException(found)
        published.append(found)
    return published


def _read(reader: Consumer, topic: str, partition: int, first: int, end: int) -> list[StoredRecord]:
    """Return the records of `[first, end)`."""
    found: list[StoredRecord] = []
    reader.assign([TopicPartition(topic, partition, first)])
    deadline = time.monotonic() + ANSWER_SECONDS
    position = first
    while position < end:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{topic}/{partition} was read to offset {position} of {end} within {ANSWER_SECONDS:.0f} s")
        if (message := reader.poll(0.2)) is not None:
            if (error := message.error()) is None:
                found.append(_stored(message))
            elif error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
        # It moves over the markers of transactions, too.
        position = max(position, reader.position([TopicPartition(topic, partition)])[0].offset)
    return [record for record in found if record.offset < end]


def _stored(message: Message) -> StoredRecord:
    partition, offset = _place(message)
    headers: tuple[tuple[str, bytes | None], ...] = tuple(message.headers() or ())  # type: ignore[arg-type]  # bytes, once read
    return StoredRecord(partition=partition, offset=offset, key=message.key(), value=message.value(), headers=headers)


def _place(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return partition, offset


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Check repeatedly until the condition holds, also while brokers do not answer yet."""
    deadline = time.monotonic() + seconds
    error: Exception | None = None
    while True:
        try:
            if condition():
                return
            error = None
        except KafkaException as caught:
            error = caught
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}") from error
        time.sleep(0.02)
