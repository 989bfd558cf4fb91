"""Requests to the brokers that need no assignment: which topics exist, and where their partitions begin and end."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import trio
from confluent_kafka import OFFSET_INVALID, Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition, Uuid
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec

from ..chat.resume_cursor import NO_EPOCH
from ..delivery.ports import EMBEDDED_TOPIC_ID, TopicFacts
from ..errors import BrokerUnreachable
from ..nursery import open_tasks
from .admins import PING_TOPIC, Admins
from .connect import broker_error, broker_errors, not_made, unreachable
from .epoch_ends import NO_END, EpochEnds
from .listing import Listings
from .reasons import Reasons
from .topic_ids import release_topic_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Future

    from confluent_kafka.admin._cluster import DescribeClusterResult
    from confluent_kafka.admin._config import ConfigEntry
    from confluent_kafka.admin._listoffsets import ListOffsetsResultInfo
    from confluent_kafka.admin._topic import TopicDescription

    from ..chat.partition_key import PartitionKey
    from ..delivery.timeouts import BrokerTimeouts
    from .connect import ClientConfig

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

NO_TOPIC_ID = str(Uuid(0, 0))  # brokers older than 2.8 return it for every topic
REMEMBERED = 20_000  # topics whose last description is kept

# With any other error the topic may exist, so it never counts as absent.
_NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TOPIC_EXCEPTION})

_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # confluent_kafka's omission
_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]


class LogEnd(NamedTuple):
    """A log's end, as a broker reports it.

    Attributes:
        offset: the end.
        epoch: the leader's epoch; `NO_EPOCH` if brokers do not report it.
    """

    offset: int
    epoch: int


class _Described(NamedTuple):
    """A description of a topic: its facts, partition -> leader, and when it was requested."""

    facts: TopicFacts
    leaders: Mapping[int, int]
    asked: float


@dataclass(slots=True)
class _Question:
    """A pending request; if it is cancelled, neither `answered` nor `failed` is set."""

    over: trio.Event = field(default_factory=trio.Event)
    answered: bool = False
    failed: str | None = None


class KafkaLookup:
    """Implements the port `Lookup` with AdminClients, whose futures are awaited without a thread.

    Only tasks of the service ask, never sessions, and every request has a time limit.

    Attributes:
        timeouts: how long to wait for brokers (`Lookup`).
    """

    def __init__(
        self, admins: Admins, leaders: Admins, listings: Listings, reasons: Reasons, timeouts: BrokerTimeouts, epoch_ends: EpochEnds
    ) -> None:
        self._admins = admins
        self._reasons = reasons
        self._epoch_ends = epoch_ends
        self._leaders = leaders  # only for requests to leaders: a client that gives one up is busy for a second
        self.timeouts = timeouts
        self._described: dict[str, _Described] = {}
        self._addresses: dict[int, str] = {}  # leader -> the address that it advertises
        self._listings = listings
        self._thread = trio.CapacityLimiter(1)  # a Consumer takes one call at a time
        self._question: _Question | None = None  # the pending request for the cluster's id

    def close(self) -> None:
        """Release the clients, in milliseconds; ask nothing afterwards."""
        self._listings.close()
        self._admins.close()
        self._leaders.close()

    async def reach(self) -> None:
        """Return if any broker answers; if librdkafka reaches none, raise `BrokerUnreachable` with its reasons."""
        await trio.to_thread.run_sync(self._listings.reach, limiter=self._thread)

    def reasons(self) -> str:
        """Return librdkafka's last connection errors; "" for none."""
        self._admins.poll()
        self._leaders.poll()
        return str(self._reasons)

    def forget_reasons(self) -> None:
        """Forget them, since brokers answer."""
        self._reasons.forget()

    async def ping(self) -> None:
        """Return if any broker answers; raise `BrokerUnreachable` with librdkafka's reasons otherwise.

        A request of the AdminClient may also fail because one broker of several is away. Concurrent calls share a pending request for
        the cluster's id: one after the other they would take twice as long to find that no broker answers.
        """
        while (question := self._question) is not None:
            await question.over.wait()
            if question.failed is not None:
                raise BrokerUnreachable(question.failed)
            if question.answered:
                return
        await self.cluster_id()

    async def cluster_id(self) -> str:
        """Return the cluster's id; raise `BrokerUnreachable` with librdkafka's reasons if no broker answers."""
        question = self._question = _Question()
        try:
            found = await trio.to_thread.run_sync(self._list_cluster, limiter=self._thread)
            question.answered = True
        except BrokerUnreachable as error:
            question.failed = str(error)
            raise
        finally:
            question.over.set()
            if self._question is question:
                self._question = None
        return found

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicFacts]:
        """Return the facts of those of `topics` that exist; see `Lookup`."""
        if not topics:
            return {}
        doing, asked = f"describing {_some(topics)}", trio.current_time()
        answers = await self._admins.asked(partial(self._ask_to_describe, list(topics)), doing, parts=len(topics))
        facts: dict[str, TopicFacts] = {}
        for topic, described in answers.items():
            if isinstance(described, KafkaError):
                if described.code() not in _NO_TOPIC:
                    raise broker_error(described, doing, topic=topic)
                continue
            partitions = frozenset(partition.id for partition in described.partitions)
            nodes = {partition.id: partition.leader for partition in described.partitions if partition.leader is not None}
            leaders = {partition: node.id for partition, node in nodes.items()}
            self._addresses.update({node.id: f"{node.host}:{node.port}" for node in nodes.values()})
            facts[topic] = TopicFacts(topic_id=str(described.topic_id), partitions=partitions, leaderless=partitions - leaders.keys())
            self._remember(topic, facts[topic], leaders, asked)
        return facts

    async def last_stable_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        """Return the last stable offsets: records produced from now on are at or after them; see `Lookup`."""
        return {key: end.offset for key, end in (await self.log_ends(keys)).items()}

    async def log_ends(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, LogEnd]:
        """Return the last stable offsets with the answering leaders' epochs; partitions without a leader are left out."""
        return await self._offsets(keys, _LATEST, doing="asking for the last stable offset")

    async def epoch_ends(self, keys: Collection[PartitionKey], epoch: int) -> Mapping[PartitionKey, int]:
        """Return where a leader epoch ends; see `Lookup`."""
        return await self._epoch_ends.ask(keys, epoch)

    async def high_watermarks(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        """Return the high watermarks: the ends with records of open transactions; partitions without a leader are left out."""
        ends = await self._offsets(keys, _LATEST, doing="asking for the high watermark", isolation=IsolationLevel.READ_UNCOMMITTED)
        return {key: end.offset for key, end in ends.items()}

    async def first_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        """Return the first offsets that still exist; see `Lookup`."""
        firsts = await self._offsets(keys, _EARLIEST, doing="asking for the first offset")
        return {key: first.offset for key, first in firsts.items()}

    async def offsets_at(self, keys: Collection[PartitionKey], time_ms: int) -> Mapping[PartitionKey, int]:
        """Return the first offsets with a timestamp at or after `time_ms`, else the last stable offset; see `Lookup`."""
        # The end is requested first, so that a record that comes between the two requests is not skipped.
        ends = await self.last_stable_offsets(keys)
        found = await self._offsets(ends.keys(), OffsetSpec.for_timestamp(time_ms), doing="asking for the offset of a time")
        return {key: found[key].offset if found[key].offset >= 0 else end for key, end in ends.items() if key in found}

    def by_leader(self, keys: Collection[PartitionKey]) -> Mapping[int, Sequence[PartitionKey]]:
        """Return `keys` grouped by leader, as of their last description; see `Lookup`."""
        by_leader: dict[int, list[PartitionKey]] = {}
        for key in keys:
            by_leader.setdefault(self._leader(key), []).append(key)
        return by_leader

    def described(self, topic: str, *, seconds: float) -> TopicFacts | None:
        """Return a topic's facts if `describe` requested them in the last `seconds`, else None. Asks no broker."""
        remembered = self._described.get(topic)
        return None if remembered is None or trio.current_time() - remembered.asked >= seconds else remembered.facts

    def address(self, leader: int) -> str | None:
        """Return the address that a leader advertises, `HOST:PORT`; None if unknown. Asks no broker."""
        return self._addresses.get(leader)

    async def compacted(self, topic: str) -> bool:
        """Return whether a topic is compacted; see `Lookup`."""
        return "compact" in await self.cleanup_policy(topic)

    async def cleanup_policy(self, topic: str) -> str:
        """Return a topic's `cleanup.policy`, such as `delete` or `compact,delete`.

        Raises:
            BrokerUnreachable: no broker answers.
            BrokerError: there is no such topic, or reading its configuration is not permitted.
        """
        doing = f"reading the cleanup.policy of {topic}"
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        answers: Mapping[ConfigResource, Mapping[str, ConfigEntry] | KafkaError] = await self._admins.asked(
            lambda admin, seconds: admin.describe_configs([resource], request_timeout=seconds), doing
        )
        answer = answers[resource]
        if isinstance(answer, KafkaError):
            raise broker_error(answer, doing, topic=topic)
        return str(answer["cleanup.policy"].value)

    async def nodes(self) -> list[str]:
        """Return the addresses that the brokers advertise, `HOST:PORT`; raise `BrokerUnreachable` if none answers."""
        doing = "asking which brokers there are"
        answers: Mapping[None, DescribeClusterResult | KafkaError] = await self._admins.asked(
            lambda admin, seconds: {None: admin.describe_cluster(request_timeout=seconds)}, doing
        )
        answer = answers[None]
        if isinstance(answer, KafkaError):
            raise broker_error(answer, doing)
        return sorted(f"{node.host}:{node.port}" for node in answer.nodes)

    async def operations(self, topics: Collection[str]) -> Mapping[str, frozenset[str]]:
        """Return our permitted operations on those of `topics` that exist, by Kafka's names: `READ`, `WRITE`, `DESCRIBE` and so on.

        Raises:
            BrokerUnreachable: no broker answers.
        """
        doing = f"asking which operations are allowed on {_some(topics)}"
        answers = await self._admins.asked(
            partial(self._ask_to_describe, list(topics), include_authorized_operations=True), doing, parts=len(topics)
        )
        found = _answered(answers, doing)
        return {topic: frozenset(operation.name for operation in described.authorized_operations) for topic, described in found.items()}

    def _remember(self, topic: str, facts: TopicFacts, leaders: Mapping[int, int], asked: float) -> None:
        if topic not in self._described and len(self._described) >= REMEMBERED:
            self._described.clear()
        self._described[topic] = _Described(facts, leaders, asked)

    def _leader(self, key: PartitionKey) -> int:
        remembered = self._described.get(key.topic)
        return -1 if remembered is None else remembered.leaders.get(key.partition, -1)

    def _ask_to_describe(
        self, topics: list[str], admin: AdminClient, seconds: float, **more: bool
    ) -> Mapping[str, Future[TopicDescription]]:
        futures: Mapping[str, Future[TopicDescription]] = admin.describe_topics(TopicCollection(topics), request_timeout=seconds, **more)
        for future in futures.values():
            future.add_done_callback(release_topic_id)
        return futures

    def _list_cluster(self) -> str:
        try:
            listing = self._listings.of(PING_TOPIC)
        except KafkaException as error:
            raise self._listings.unanswered(error) from error
        self._listings.poll()  # for its log lines
        return str(listing.cluster_id)

    def _list(self) -> dict[str, frozenset[int]]:
        with broker_errors("asking for the topics"):
            listing = self._listings.of(None)
        self._listings.poll()
        return {name: frozenset(facts.partitions) for name, facts in listing.topics.items() if facts.error is None}

    async def _offsets(
        self, keys: Collection[PartitionKey], spec: OffsetSpec, *, doing: str, isolation: IsolationLevel = IsolationLevel.READ_COMMITTED
    ) -> dict[PartitionKey, LogEnd]:
        if not keys:
            return {}
        by_partition = {(key.topic, key.partition): key for key in keys}
        doing = f"{doing} of {_some(keys)}"
        asked = {TopicPartition(topic, partition): spec for topic, partition in by_partition}
        # Without the isolation level the answer is the high watermark, which is above open transactions.
        answers: Mapping[TopicPartition, ListOffsetsResultInfo | KafkaError] = await self._leaders.asked(
            lambda admin, seconds: admin.list_offsets(asked, isolation_level=isolation, request_timeout=seconds),
            doing,
            parts=len(asked),
            told=_has_offset,
        )
        return {
            by_partition[partition.topic, partition.partition]: LogEnd(answer.offset, NO_EPOCH if epoch is None else epoch)
            for partition, answer in _answered(answers, doing).items()
            for epoch in (answer.leader_epoch,)
        }


class EmbeddedLookup(KafkaLookup):
    """`KafkaLookup` for the embedded broker, which supports neither `describe_topics` nor topic ids nor configurations."""

    async def epoch_ends(self, keys: Collection[PartitionKey], epoch: int) -> Mapping[PartitionKey, int]:
        """Return no end: the embedded broker has no elections."""
        await trio.lowlevel.checkpoint()
        return dict.fromkeys(keys, NO_END)

    async def compacted(self, topic: str) -> bool:
        """Return False: the embedded broker does not compact."""
        await trio.lowlevel.checkpoint()
        return False

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicFacts]:
        """Return the facts of those of `topics` that exist; see `Lookup`."""
        asked = trio.current_time()
        there = await trio.to_thread.run_sync(self._list, limiter=self._thread)
        facts = {topic: TopicFacts(topic_id=EMBEDDED_TOPIC_ID, partitions=there[topic]) for topic in topics if topic in there}
        for topic, told in facts.items():
            self._remember(topic, told, {}, asked)
        return facts


@asynccontextmanager
async def open_lookup(config: ClientConfig) -> AsyncIterator[KafkaLookup]:
    """Make a lookup available while the block runs; the brokers may be away.

    Raises:
        SettingsError: librdkafka rejects `kafka.properties`.
        ServiceFailed: there is no room for its threads.
    """
    try:
        reasons = Reasons()
        first, second, third = (AdminClient(config.admin(error_cb=reasons.take)) for _ in range(3))
        admins, leaders = Admins([first, second], config.timeouts), Admins([third], config.timeouts)
        listings = Listings(Consumer(config.consumer(error_cb=reasons.take)), config.timeouts, reasons)
    except KafkaException as error:
        raise not_made(error) from error
    lookup = (EmbeddedLookup if config.embedded else KafkaLookup)(admins, leaders, listings, reasons, config.timeouts, EpochEnds(config))
    try:
        async with open_tasks() as nursery:
            nursery.start_soon(admins.run_log)
            nursery.start_soon(leaders.run_log)
            yield lookup
    finally:
        lookup.close()


def _has_offset(answer: ListOffsetsResultInfo | KafkaError) -> bool:
    return isinstance(answer, KafkaError) or answer.offset != OFFSET_INVALID


def _answered(answers: Mapping[K, T | KafkaError], doing: str) -> dict[K, T]:
    """Return the answers that are not errors; raise `BrokerUnreachable` if there are none because no broker answered."""
    found = {key: answer for key, answer in answers.items() if not isinstance(answer, KafkaError)}
    if not found:
        for error in answers.values():
            if isinstance(error, KafkaError) and unreachable(error):
                raise broker_error(error, doing)
    return found


def _some(names: Collection[object]) -> str:
    first = next(iter(names))
    return str(first) if len(names) == 1 else f"{first} and {len(names) - 1} more"
