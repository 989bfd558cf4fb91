"""A Tail on a broker, and a listener that records its events."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import trio

from kafka_chat.chat.names import ChatNames
from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.chat.resume_cursor import NO_EPOCH
from kafka_chat.delivery.ports import NO_EPOCHS
from kafka_chat.delivery.records.frames import text_payloads
from kafka_chat.kafka.cluster import Cluster
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.lookup import open_lookup
from kafka_chat.kafka.open_transactions import HELD_SECONDS
from kafka_chat.kafka.tail import KafkaTail, open_tail
from kafka_chat.settings.model import KafkaSettings, Limits
from kafka_chat.telemetry.metrics import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from kafka_chat.chat.loss_cause import LossCause
    from kafka_chat.chat.message import Reject
    from kafka_chat.delivery.records.batch import Batch
    from kafka_chat.kafka.lookup import KafkaLookup

    from .brokers import Broker
    from .chats import Chats


class Opened(NamedTuple):
    topic: str
    topic_id: str
    starts: dict[int, int]
    created: bool


class Missing(NamedTuple):
    topic: str


class Gone(NamedTuple):
    topic: str
    topic_id: str
    cause: LossCause | None


class Jumped(NamedTuple):
    key: PartitionKey
    asked: int
    first_left: int
    cause: LossCause


class Appended(NamedTuple):
    key: PartitionKey
    texts: list[str]
    next: int


Event = Opened | Missing | Gone | Jumped | Appended


class Told:
    """A `TailListener` that checks what listeners rely on: opened before appended to, without gaps.

    Attributes:
        events: what it was told, in order.
        positions: of the logs that are open.
        batches: all that were appended.
        during: called with each event, before it returns to the Tail.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.positions: dict[PartitionKey, int] = {}
        self.batches: list[Batch] = []
        self.during: Callable[[Event], None] = lambda event: None
        self._news = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for events until the condition holds."""
        while not condition():
            await self._news.wait()

    async def opened(self, topic: str, times: int = 1) -> Opened:
        """Wait until a topic was opened so often; return the last one."""
        await self.until(lambda: len(self.of(Opened, topic)) >= times)
        return self.of(Opened, topic)[-1]

    def of(self, kind: type, topic: str) -> list:
        """Return the events of a kind for a topic."""
        return [event for event in self.events if isinstance(event, kind) and topic in (event[0], event[0][0])]

    def texts(self, topic: str, partition: int | None = None) -> list[str]:
        """Return the texts of all messages of a topic in the order in which they were appended."""
        found = [event for event in self.of(Appended, topic) if partition in (None, event.key.partition)]
        return [text for event in found for text in event.texts]

    def position(self, topic: str, partition: int = 0) -> int:
        """Return the position of the open log of a partition."""
        (found,) = [position for key, position in self.positions.items() if (key.topic, key.partition) == (topic, partition)]
        return found

    # The TailListener

    def topic_opened(
        self, topic: str, topic_id: str, starts: Mapping[int, int], *, created: bool, epochs: Mapping[int, int] = NO_EPOCHS
    ) -> None:
        for partition, start in starts.items():
            assert (topic, partition) not in {(key.topic, key.partition) for key in self.positions}, f"{topic}/{partition} is open"
            self.positions[PartitionKey(topic, topic_id, partition)] = start
        self._note(Opened(topic, topic_id, dict(starts), created))

    def is_subscribed(self, topic: str) -> bool:
        return True

    def topic_missing(self, topic: str) -> None:
        self._note(Missing(topic))

    def topic_lost(self, topic: str, topic_id: str, cause: LossCause | None) -> None:
        lost = [key for key in self.positions if (key.topic, key.topic_id) == (topic, topic_id)]
        assert lost, f"{topic} of id {topic_id} was not open"
        for key in lost:
            del self.positions[key]
        self._note(Gone(topic, topic_id, cause))

    def append(self, key: PartitionKey, batches: Sequence[Batch]) -> None:
        for batch in batches:
            assert batch.first == self.positions[key], f"{key}: {batch.first} follows {self.positions[key]}"
            assert batch.next > batch.first
            self.positions[key] = batch.next
        self.batches += batches
        texts = [json.loads(payload)["text"] for batch in batches for payload in text_payloads(batch.whole().data)]
        self._note(Appended(key, texts, batches[-1].next))

    def position_lost(self, key: PartitionKey, asked: int, first_left: int, cause: LossCause, *, epoch: int = NO_EPOCH) -> None:
        assert asked == self.positions[key]
        self.positions[key] = first_left
        self._note(Jumped(key, asked, first_left, cause))

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()
        self.during(event)


class Noted(Telemetry):
    """A `Telemetry` that records a Tail's events."""

    def __init__(self) -> None:
        super().__init__()
        self.rejected: list[tuple[str, int, int, Reject]] = []
        self.lost: list[tuple[str, int, int, int, LossCause]] = []
        self.brokers: list[str] = []

    def record_rejected(self, *, topic: str, partition: int, offset: int, reason: Reject) -> None:
        self.rejected.append((topic, partition, offset, reason))

    def position_lost(self, *, topic: str, partition: int, asked: int, first_left: int, cause: LossCause) -> None:
        self.lost.append((topic, partition, asked, first_left, cause))

    def brokers_away(self, *, reason: str) -> None:
        self.brokers.append("away")

    def brokers_back(self) -> None:
        self.brokers.append("back")


@dataclass(frozen=True, kw_only=True)
class Following:
    """A Tail, and its events."""

    tail: KafkaTail
    told: Told
    lookup: KafkaLookup
    noted: Noted


def client_config(broker: Broker) -> ClientConfig:
    """Return the configurations of our clients for a broker."""
    return ClientConfig(KafkaSettings(bootstrap_servers=broker.bootstrap, embedded=broker.embedded))


@asynccontextmanager
async def following(
    broker: Broker,
    chats: Chats,
    *topics: str,
    limits: Limits | None = None,
    lookup: KafkaLookup | None = None,
    consumers: int = 1,
    held_seconds: float = HELD_SECONDS,
) -> AsyncIterator[Following]:
    """Run a Tail that follows some topics.

    Args:
        broker: where.
        chats: says the prefix.
        topics: to follow from the beginning.
        limits: other ones than the defaults.
        lookup: another one than the broker's.
        consumers: how many it may have.
        held_seconds: how long a transaction is open before it is reported.
    """
    told, noted = Told(), Noted()
    async with AsyncExitStack() as stack:
        lookup = lookup or await stack.enter_async_context(open_lookup(client_config(broker)))
        tail = await stack.enter_async_context(
            open_tail(
                KafkaTail(
                    client_config(broker),
                    listener=told,
                    lookup=lookup,
                    cluster=Cluster(lookup, noted),
                    names=ChatNames(chats.prefix),
                    limits=limits or Limits(),
                    telemetry=noted,
                    consumers=consumers,
                    held_seconds=held_seconds,
                )
            )
        )
        for topic in topics:
            tail.follow(topic)
        yield Following(tail=tail, told=told, lookup=lookup, noted=noted)
