"""Produces messages at a steady rate from a thread, and notes each one's place in a ledger."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from .chats import Chats, message
from .checker import Journal, Lane, Ledger, Record
from .deadlines import HANG_SECONDS

if TYPE_CHECKING:
    from .brokers import Broker, KafkaCluster

STEP_SECONDS = 0.005
PADDING = "x" * 60


@dataclass(frozen=True)
class Room:
    """A chat to produce to.

    Attributes:
        chat: its name.
        topic: its topic's name.
        identity: its topic's id as ids of messages have it (`identity_told`); "" on the embedded broker.
        partitions: how many are produced to, in turn.
    """

    chat: str
    topic: str
    identity: str
    partitions: int

    @property
    def lanes(self) -> list[Lane]:
        """Its partitions."""
        return [Lane(self.chat, partition, self.identity) for partition in range(self.partitions)]


def identity_told(topic_id: str) -> str:
    """Return a topic's id in the alphabet of cursors: `+` and `/` are `-` and `_` there."""
    return topic_id.translate(str.maketrans("+/", "-_"))


def made(cluster: KafkaCluster, chats: Chats, chat: str, partitions: int = 1, **config: Any) -> Room:
    """Make the topic of a chat."""
    topic = chats.topic(chat)
    return Room(chat, topic, identity_told(cluster.create_topic(topic, partitions, **config)), partitions)


class SteadyProducer:
    """Knows what was acknowledged.

    Attributes:
        ledger: what was, and where.
        ends: a lane -> the offset after the last that was acknowledged.
        acknowledged: how many.
        rooms: what it produces to, one after the other; may be set at any time.
        held: whether it waits, so that clients whose machine is busy are not given ever more; may be set at any time.
    """

    def __init__(
        self, broker: Broker, rooms: Sequence[Room], *, per_second: float, ledger: Ledger | None = None, first_number: int = 0
    ) -> None:
        self.ledger = ledger or Ledger()
        self.ends: dict[Lane, int] = defaultdict(int)
        self.acknowledged = 0
        self.rooms = list(rooms)
        self.held = False
        self._per_second = per_second
        self._number = first_number
        config = {"acks": "all", "linger.ms": 0, "enable.idempotence": True, "message.timeout.ms": 30000}
        self._producer = Producer({**broker.client("steady-producer"), **config})
        self._last: dict[Lane, int] = {}
        self._failed: KafkaError | None = None
        self._stop = threading.Event()

    def run(self) -> None:
        """Produce until `stop`, and return once all is acknowledged; in a thread of its own."""
        for room in self.rooms:
            self._producer.list_topics(room.topic, timeout=HANG_SECONDS)
        looked, due = time.monotonic(), 0.0
        while not self._stop.is_set():
            now = time.monotonic()
            due = 0.0 if self.held else due + (now - looked) * self._per_second
            looked = now
            for _ in range(int(due)):
                self._one()
            due -= int(due)
            self._producer.poll(STEP_SECONDS)
            if self._failed is not None:
                raise KafkaException(self._failed)
        self.flush()

    def stop(self) -> None:
        """Make `run` return."""
        self._stop.set()

    def some(self, count: int) -> None:
        """Produce this many as fast as possible, and return once they are acknowledged; not during `run`."""
        for room in self.rooms:
            self._producer.list_topics(room.topic, timeout=HANG_SECONDS)
        for _ in range(count):
            self._one()
        self.flush()

    def say_last(self) -> None:
        """Produce one more to each partition, by which clients know that they have all; not beside `run`."""
        lanes = [lane for room in self.rooms for lane in room.lanes]
        self._last = {lane: self.ends[lane] for lane in lanes}
        self.some(len(lanes))
        wrong = [str(lane) for lane in lanes if self.ends[lane] <= self._last[lane]]
        assert not wrong, f"nothing more came into {wrong}"

    def is_last(self, journal: Journal) -> bool:
        """Whether the last message of every partition that is owed has come."""
        if not self._last:
            return False
        return all((came := journal.recorded[lane].offsets) and came[-1] >= self._last[lane] for lane in journal.owed)

    def flush(self) -> None:
        """Wait until everything produced is acknowledged."""
        if self._producer.flush(30) or self._failed is not None:
            raise KafkaException(self._failed or KafkaError(KafkaError._TIMED_OUT))

    def _one(self) -> None:
        number = self._number
        self._number += 1
        room = self.rooms[number % len(self.rooms)]
        partition = number // len(self.rooms) % room.partitions
        told = self._told(Lane(room.chat, partition, room.identity), number)
        deadline = time.monotonic() + 20
        while True:
            try:
                self._producer.produce(room.topic, message(f"{number} {PADDING}"), partition=partition, on_delivery=told)
                return
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._UNKNOWN_PARTITION or time.monotonic() > deadline:
                    raise
                self._producer.list_topics(room.topic, timeout=HANG_SECONDS)  # it was added since

    def _told(self, lane: Lane, number: int) -> Callable[[KafkaError | None, Message], None]:
        def told(error: KafkaError | None, produced: Message) -> None:
            if error is not None:
                self._failed = error
                return
            offset = produced.offset()
            assert offset is not None
            self.ledger.produced(lane, offset, Record(number))
            self.ends[lane] = max(self.ends[lane], offset + 1)
            self.acknowledged += 1

        return told


@asynccontextmanager
async def producing(producer: SteadyProducer) -> AsyncIterator[None]:
    """Produce while the block runs; all is acknowledged when it has ended."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, producer.run)
        try:
            yield
        finally:
            producer.stop()
