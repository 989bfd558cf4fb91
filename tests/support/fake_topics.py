"""Topics of Kafka, in memory, at the ports of the core: a Lookup, a Tail and a PageSource at once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.names import ChatNames
from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.delivery.ports import TailListener, TopicFacts
from kafka_chat.delivery.records.batch import Batch
from kafka_chat.delivery.records.record import Record
from kafka_chat.delivery.timeouts import BrokerTimeouts
from kafka_chat.errors import BrokerError, BrokerUnreachable, PositionLost, TopicGone
from kafka_chat.kafka.lookup import LogEnd

PREFIX = "kafka.chat."
NAMES = ChatNames(PREFIX)
MAX_BYTES = 1_000_000
HUNG_SECONDS = 3.0  # as long as a question to a leader that hangs takes until it is given up


def value(text: str, *, sender: str = "ann", tag: str | None = None) -> bytes:
    return json.dumps({"sender": sender, "text": text, "tag": tag, "topic": "any"}).encode()


@dataclass
class FakePartition:
    """Records by offset; offsets that are missing are holes."""

    records: dict[int, bytes | None] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    epoch: int = 0  # the leader's
    epoch_starts: dict[int, int] = field(default_factory=dict)  # where each leader found the end of its log
    low: int = 0
    end: int = 0


@dataclass
class FakeTopic:
    topic_id: str
    partitions: dict[int, FakePartition]


class FakeKafka:
    """Topics in memory; a Lookup, a Tail and a PageSource at once."""

    def __init__(self) -> None:
        self.topics: dict[str, FakeTopic] = {}
        self.requested: set[str] = set()
        self.opened: set[str] = set()  # of these, those that the listener has been told of: only then records come
        self.listener: TailListener
        self.away = False
        self.page_reads: list[tuple[str, int, int, int]] = []
        self.page_gate: trio.Event | None = None
        self.page_bytes = 256 * 1024
        self.compacting: set[str] = set()
        self.round_trip_seconds = 0.0  # to the brokers and back: what they say was so half of that ago
        self.leaders: dict[str, int] = {}  # topic -> who leads it, where that is not 1
        self.timeouts = BrokerTimeouts()
        self.questions: list[frozenset[PartitionKey]] = []
        self.epochs_asked: list[int] = []  # whose ends were asked for
        self.hung: set[int] = set()  # leaders that take questions of offsets, and reads of pages, and do not answer; …
        self.hung_reads: set[int] = set()  # … and those that do so with pages alone
        self.cluster = "here"  # its id
        self._ids = itertools.count(1)

    # What a test does

    def create(self, topic: str, partitions: int = 1) -> None:
        self.topics[topic] = FakeTopic(f"id{next(self._ids)}", {n: FakePartition() for n in range(partitions)})
        if topic in self.requested:
            self._open(topic, created=True)

    def delete(self, topic: str, cause: LossCause | None = None) -> None:
        gone = self.topics.pop(topic)
        self.opened.discard(topic)
        if topic in self.requested:
            self.listener.topic_lost(topic, gone.topic_id, cause)

    def produce(self, topic: str, *values: bytes | None, partition: int = 0, tail: bool = True, hole: int = 0, time_ms: int = 0) -> int:
        """Append records (after `hole` lost offsets), notify the Tail's listener, return the offset of the last."""
        log = self.topics[topic].partitions[partition]
        first = log.end
        log.end += hole
        for item in values:
            log.records[log.end] = item
            log.times[log.end] = time_ms
            log.epochs[log.end] = log.epoch
            log.end += 1
        if tail and topic in self.opened:
            self.listener.append(self.key(topic, partition), [self.batch(topic, partition, first, log.end)])
        return log.end - 1

    def catch_up(self, topic: str, first: int, partition: int = 0) -> None:
        """Hand the Tail's listener what was produced with `tail=False`, from `first` on."""
        log = self.topics[topic].partitions[partition]
        self.listener.append(self.key(topic, partition), [self.batch(topic, partition, first, log.end)])

    def elect(self, topic: str, end: int | None = None, partition: int = 0, *, tail: bool = True) -> None:
        """Elect another leader; with `end` one whose log ends there: an unclean election, which the Tail reports if it knows."""
        log = self.topics[topic].partitions[partition]
        asked, log.end, log.epoch = log.end, log.end if end is None else min(end, log.end), log.epoch + 1
        log.epoch_starts = {epoch: start for epoch, start in log.epoch_starts.items() if start < log.end} | {log.epoch: log.end}
        if log.end == asked:
            return
        end = log.end
        for told in (log.records, log.times, log.epochs):
            for offset in [offset for offset in told if offset >= end]:
                del told[offset]
        if topic in self.opened and tail:
            self.listener.position_lost(self.key(topic, partition), asked, end, LossCause.TRUNCATED, epoch=log.epoch)

    def trim(self, topic: str, before: int, partition: int = 0) -> None:
        log = self.topics[topic].partitions[partition]
        log.low = before
        for offset in [offset for offset in log.records if offset < before]:
            del log.records[offset]

    def key(self, topic: str, partition: int = 0) -> PartitionKey:
        return PartitionKey(topic, self.topics[topic].topic_id, partition)

    def back(self) -> None:
        """The brokers are back: the Tail opens what is requested."""
        self.away = False
        for topic in self.requested:
            self._look(topic)

    # Tail

    def follow(self, topic: str) -> None:
        if topic not in self.requested:
            self.requested.add(topic)
            if self.round_trip_seconds:
                trio.lowlevel.spawn_system_task(self._look_far, topic)
            else:
                trio.lowlevel.current_trio_token().run_sync_soon(self._look, topic)

    def unfollow(self, topic: str) -> None:
        self.requested.discard(topic)
        self.opened.discard(topic)

    def partitions(self, topic: str) -> int:
        return len(self.topics[topic].partitions) if topic in self.opened and topic in self.topics else 0

    def _look(self, topic: str) -> None:
        if self.away or topic not in self.requested:
            return
        if topic in self.topics:
            self._open(topic, created=False)
        else:
            self.listener.topic_missing(topic)

    async def _look_far(self, topic: str) -> None:
        await self._on_the_way()
        ends = {number: log.end for number, log in self.topics[topic].partitions.items()}
        await self._on_the_way()
        if topic in self.requested and topic not in self.opened:
            self.opened.add(topic)
            self.listener.topic_opened(topic, self.topics[topic].topic_id, ends, created=False)
            for number, log in self.topics[topic].partitions.items():
                if log.end > ends[number]:
                    self.catch_up(topic, ends[number], number)

    def _open(self, topic: str, *, created: bool) -> None:
        facts = self.topics[topic]
        starts = {n: 0 if created else log.end for n, log in facts.partitions.items()}
        self.opened.add(topic)
        epochs = {n: log.epoch for n, log in facts.partitions.items()}
        self.listener.topic_opened(topic, facts.topic_id, starts, created=created, epochs=epochs)

    # PageSource

    async def read(self, key: PartitionKey, first: int, until: int) -> Batch:
        self.page_reads.append((key.topic, key.partition, first, until))
        await trio.lowlevel.checkpoint()
        if self.page_gate is not None:
            await self.page_gate.wait()
        if self.away:
            raise BrokerUnreachable("reading a page")
        if self.leader(key) in self.hung | self.hung_reads:
            await trio.sleep(HUNG_SECONDS)
            raise BrokerUnreachable("reading a page from a leader that hangs")
        topic = self.topics.get(key.topic)
        if topic is None or topic.topic_id != key.topic_id:
            raise TopicGone("reading a page")
        log = topic.partitions[key.partition]
        if first < log.low:
            raise PositionLost(asked=first, first_left=log.low)
        if first >= log.end:
            raise BrokerUnreachable(f"{key} has no offset {first} now")
        end, size = first, 0
        while end < min(until, log.end):
            size += len(log.records.get(end) or b"")
            if size > self.page_bytes and end > first:
                break
            end += 1
        return self.batch(key.topic, key.partition, first, end)

    # Lookup

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicFacts]:
        await self._asked()
        known = {topic: self.topics[topic] for topic in topics if topic in self.topics}
        return {topic: TopicFacts(topic_id=facts.topic_id, partitions=frozenset(facts.partitions)) for topic, facts in known.items()}

    async def ping(self) -> None:
        """As the Tail does."""
        await self._asked()

    def forget_reasons(self) -> None:
        """As the Tail does once brokers answer."""

    async def cluster_id(self) -> str:
        """As `Cluster` asks for it."""
        await self._asked()
        return self.cluster

    async def last_stable_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        await self._asked(keys)
        ends = {key: log.end for key, log in self._partitions(keys)}
        await self._on_the_way()
        return ends

    async def log_ends(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, LogEnd]:
        """As the Tail asks for them."""
        await self._asked(keys)
        return {key: LogEnd(log.end, log.epoch) for key, log in self._partitions(keys)}

    async def first_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        await self._asked(keys)
        firsts = {key: log.low for key, log in self._partitions(keys)}
        await self._on_the_way()
        return firsts

    async def epoch_ends(self, keys: Collection[PartitionKey], epoch: int) -> Mapping[PartitionKey, int]:
        await self._asked(keys)
        self.epochs_asked.append(epoch)
        return {
            key: min((start for later, start in log.epoch_starts.items() if later > epoch), default=log.end)
            for key, log in self._partitions(keys)
        }

    def by_leader(self, keys: Collection[PartitionKey]) -> Mapping[int, Sequence[PartitionKey]]:
        by_leader: dict[int, list[PartitionKey]] = {}
        for key in keys:
            by_leader.setdefault(self.leaders.get(key.topic, 1), []).append(key)
        return by_leader

    def leader(self, key: PartitionKey) -> int:
        return next(iter(self.by_leader([key])))

    async def offsets_at(self, keys: Collection[PartitionKey], time_ms: int) -> Mapping[PartitionKey, int]:
        ends = {key: log.end for key, log in self._partitions(keys)}  # told first, as by the real one
        await self._asked(keys)
        found = {
            key: min((offset for offset, time in log.times.items() if time >= time_ms), default=ends.get(key, log.end))
            for key, log in self._partitions(keys)
        }
        await self._on_the_way()
        return found

    async def compacted(self, topic: str) -> bool:
        await self._asked()
        if topic not in self.topics:
            raise BrokerError(f"there is no {topic}")
        return topic in self.compacting

    async def _asked(self, keys: Collection[PartitionKey] = ()) -> None:
        await trio.lowlevel.checkpoint()
        self.questions.append(frozenset(keys))
        if self.away:
            raise BrokerUnreachable("asking")
        if self.hung & self.by_leader(keys).keys():
            await trio.sleep(HUNG_SECONDS)
            raise BrokerUnreachable("asking a leader that hangs")
        await self._on_the_way()

    async def _on_the_way(self) -> None:
        if self.round_trip_seconds:
            await trio.sleep(self.round_trip_seconds / 2)

    def _partitions(self, keys: Collection[PartitionKey]) -> Iterator[tuple[PartitionKey, FakePartition]]:
        for key in keys:
            topic = self.topics.get(key.topic)
            if topic is not None and topic.topic_id == key.topic_id and key.partition in topic.partitions:
                yield key, topic.partitions[key.partition]

    def batch(self, topic: str, partition: int, first: int, end: int) -> Batch:
        log = self.topics[topic].partitions[partition]
        offsets = [offset for offset in range(first, end) if offset in log.records]
        records = [Record(offset, log.records[offset], log.times[offset], epoch=log.epochs[offset]) for offset in offsets]
        return Batch.decode(records, self.key(topic, partition), first=first, next=end, chat=NAMES.chat(topic), max_bytes=MAX_BYTES)
