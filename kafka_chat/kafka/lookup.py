"""Questions to the brokers that need no assignment: which topics there are, and where their partitions begin and end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import trio
from confluent_kafka import OFFSET_INVALID, Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec

from ..chat.resume_cursor import NO_EPOCH
from ..delivery.ports import EMBEDDED_TOPIC_ID, TopicFacts
from ..errors import BrokerUnreachable, SettingsError
from ..nursery import open_tasks
from .connect import admin_futures, broker_error, broker_errors, unreachable
from .epoch_ends import NO_END, EpochEnds
from .topic_ids import release_topic_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Future

    from confluent_kafka.admin._cluster import DescribeClusterResult
    from confluent_kafka.admin._config import ConfigEntry
    from confluent_kafka.admin._listoffsets import ListOffsetsResultInfo
    from confluent_kafka.admin._metadata import ClusterMetadata
    from confluent_kafka.admin._topic import TopicDescription

    from ..chat.partition_key import PartitionKey
    from ..delivery.timeouts import BrokerTimeouts
    from .connect import ClientConfig

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

# How often what gets no answer is asked, the tries side by side. One that is asked while the client connects may never be sent, which
# happens to one in twenty of the first ones, and nothing but its timeout ends it. Others are for one broker, the "controller",
# and that may be away: then the next try is for another one. A try is not ended when the next one begins: it may only be slow, and
# librdkafka would close the connection, which is then made anew, and never gets to answer where that takes longer than a try.
TRIES = 5
LATE_SECONDS = 0.2  # how much later than it is told librdkafka may tell of a timeout; what it has been told by then comes with it
LEAST_SECONDS = 0.4  # less is no time for an answer
CONTROLLERS = 10  # listings until one names another controller: each names any of them, one that was just killed included
LOG_SECONDS = 1.0
LEADERS_OF = 20_000  # topics of which it is remembered who leads them
PING_TOPIC = "kafka_chat-ping"  # there is none, and it is not made by being asked for


# Any other error says nothing of whether there is such a topic: so it is none of the answers that a topic may be given up for.
_NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TOPIC_EXCEPTION})

_UNTOLD = KafkaError(KafkaError._TIMED_OUT)

_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # confluent_kafka's omission
_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]


class LogEnd(NamedTuple):
    """What a broker says of an end of a log.

    Attributes:
        offset: the end.
        epoch: the leader's; `NO_EPOCH` where brokers do not tell.
    """

    offset: int
    epoch: int


class KafkaLookup:
    """Implements the port `Lookup` by an AdminClient, whose futures are awaited without a thread.

    No session ever asks here itself: tasks of the service do, and every answer has its time limit.
    """

    def __init__(self, admin: AdminClient, lister: Consumer, timeouts: BrokerTimeouts, epoch_ends: EpochEnds) -> None:
        self._admin = admin
        self._epoch_ends = epoch_ends
        self._timeouts = timeouts
        self._leaders: dict[str, Mapping[int, int]] = {}  # topic -> partition -> who led it when it was described
        self._lister = lister  # never assigned: a Consumer's metadata requests create no topic, an AdminClient's do
        self._thread = trio.CapacityLimiter(1)  # a Consumer takes one call at a time
        self._learning = trio.Lock()
        self._learners = trio.CapacityLimiter(1)
        self._learned = float("-inf")
        self._controller = -1  # whom the AdminClient was last told to ask

    async def run_log(self) -> None:
        """Have the AdminClient's log lines written, until cancelled; without this they would pile up in it."""
        while True:
            self._admin.poll(0)
            await trio.sleep(LOG_SECONDS)

    def close(self) -> None:
        """Let go of the clients, in milliseconds; nothing may be asked from then on."""
        self._lister.close()
        del self._admin  # which ends when nobody holds it any more

    async def ping(self) -> None:
        """Return if any broker answers; raise `BrokerUnreachable` otherwise.

        What the AdminClient is asked may also fail because one broker of several is away.
        """
        await trio.to_thread.run_sync(self._list, PING_TOPIC, limiter=self._thread)

    async def cluster_id(self) -> str:
        """Return what the brokers call their cluster; raise `BrokerUnreachable` if none answers."""
        return await trio.to_thread.run_sync(self._list_cluster, limiter=self._thread)

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicFacts]:
        """Return the facts of those of `topics` that exist; see `Lookup`."""
        if not topics:
            return {}
        doing = f"describing {_some(topics)}"
        answers = await self._asked(partial(self._ask_to_describe, list(topics)), doing)
        facts: dict[str, TopicFacts] = {}
        for topic, described in answers.items():
            if isinstance(described, KafkaError):
                if described.code() not in _NO_TOPIC:
                    raise broker_error(described, doing, topic=topic)
                continue
            partitions = frozenset(partition.id for partition in described.partitions)
            leaders = {partition.id: partition.leader.id for partition in described.partitions if partition.leader is not None}
            leaderless = partitions - leaders.keys()
            if topic not in self._leaders and len(self._leaders) >= LEADERS_OF:
                self._leaders.clear()
            self._leaders[topic] = leaders
            facts[topic] = TopicFacts(topic_id=str(described.topic_id), partitions=partitions, leaderless=leaderless)
        return facts

    async def last_stable_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        """Return where what is produced from now on will be, at the lowest; see `Lookup`."""
        return {key: end.offset for key, end in (await self.log_ends(keys)).items()}

    async def log_ends(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, LogEnd]:
        """Return the same, each with the epoch of the leader who tells; a partition without a leader is left out."""
        return await self._offsets(keys, _LATEST, doing="asking for the last stable offset")

    async def epoch_ends(self, keys: Collection[PartitionKey], epoch: int) -> Mapping[PartitionKey, int]:
        """Return where a leader epoch ends; see `Lookup`."""
        return await self._epoch_ends.ask(keys, epoch)

    async def first_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        """Return the first offset that is left; see `Lookup`."""
        firsts = await self._offsets(keys, _EARLIEST, doing="asking for the first offset")
        return {key: first.offset for key, first in firsts.items()}

    async def offsets_at(self, keys: Collection[PartitionKey], time_ms: int) -> Mapping[PartitionKey, int]:
        """Return the first offset whose timestamp is at or after `time_ms`, else the last stable one; see `Lookup`."""
        # The end is asked for first: a record that comes between the two questions is then not skipped.
        ends = await self.last_stable_offsets(keys)
        found = await self._offsets(ends.keys(), OffsetSpec.for_timestamp(time_ms), doing="asking for the offset of a time")
        return {key: found[key].offset if found[key].offset >= 0 else end for key, end in ends.items() if key in found}

    def by_leader(self, keys: Collection[PartitionKey]) -> Mapping[int, Sequence[PartitionKey]]:
        """Return `keys` by who led them when they were last described; see `Lookup`."""
        by_leader: dict[int, list[PartitionKey]] = {}
        for key in keys:
            by_leader.setdefault(self._leaders.get(key.topic, {}).get(key.partition, -1), []).append(key)
        return by_leader

    async def compacted(self, topic: str) -> bool:
        """Return whether a topic is compacted; see `Lookup`."""
        doing = f"asking how {topic} is cleaned up"
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        answers: Mapping[ConfigResource, Mapping[str, ConfigEntry] | KafkaError] = await self._asked(
            lambda seconds: self._admin.describe_configs([resource], request_timeout=seconds), doing
        )
        answer = answers[resource]
        if isinstance(answer, KafkaError):
            raise broker_error(answer, doing, topic=topic)
        return "compact" in str(answer["cleanup.policy"].value)

    async def nodes(self) -> list[str]:
        """Return the addresses of the brokers, `HOST:PORT`, as they name themselves; raise `BrokerUnreachable` if none answers."""
        doing = "asking which brokers there are"
        answers: Mapping[None, DescribeClusterResult | KafkaError] = await self._asked(
            lambda seconds: {None: self._admin.describe_cluster(request_timeout=seconds)}, doing
        )
        answer = answers[None]
        if isinstance(answer, KafkaError):
            raise broker_error(answer, doing)
        return sorted(f"{node.host}:{node.port}" for node in answer.nodes)

    async def operations(self, topics: Collection[str]) -> Mapping[str, frozenset[str]]:
        """Return what we may do with those of `topics` that exist, in Kafka's words: `READ`, `WRITE`, `DESCRIBE` and so on.

        Raises:
            BrokerUnreachable: no broker answers.
        """
        doing = f"asking what may be done with {_some(topics)}"
        answers = await self._asked(partial(self._ask_to_describe, list(topics), include_authorized_operations=True), doing)
        found = _answered(answers, doing)
        return {topic: frozenset(operation.name for operation in described.authorized_operations) for topic, described in found.items()}

    def _ask_to_describe(self, topics: list[str], seconds: float, **more: bool) -> Mapping[str, Future[TopicDescription]]:
        futures: Mapping[str, Future[TopicDescription]] = self._admin.describe_topics(
            TopicCollection(topics), request_timeout=seconds, **more
        )
        for future in futures.values():
            future.add_done_callback(release_topic_id)
        return futures

    def _list_cluster(self) -> str:
        with broker_errors("asking for the cluster's id"):
            listing = self._listed(PING_TOPIC)
        return str(listing.cluster_id)

    def _list(self, topic: str | None) -> dict[str, frozenset[int]]:
        with broker_errors("asking for the topics"):
            listing = self._listed(topic)
        self._lister.poll(0)  # its log lines
        return {name: frozenset(facts.partitions) for name, facts in listing.topics.items() if facts.error is None}

    def _listed(self, topic: str | None) -> ClusterMetadata:
        """Return a listing of one topic, or of all; a thread waits for it."""
        began, seconds = time.monotonic(), self._timeouts.answer_seconds
        asked = {"timeout": seconds} if topic is None else {"topic": topic, "timeout": seconds}
        listing: ClusterMetadata = self._lister.list_topics(**asked)
        self._timeouts.took(time.monotonic() - began)
        return listing

    async def _offsets(self, keys: Collection[PartitionKey], spec: OffsetSpec, *, doing: str) -> dict[PartitionKey, LogEnd]:
        if not keys:
            return {}
        by_partition = {(key.topic, key.partition): key for key in keys}
        doing = f"{doing} of {_some(keys)}"
        asked = {TopicPartition(topic, partition): spec for topic, partition in by_partition}
        # Without the isolation level the answer is the high watermark, which lies above open transactions.
        answers: Mapping[TopicPartition, ListOffsetsResultInfo | KafkaError] = await self._asked(
            lambda seconds: self._admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=seconds),
            doing,
            told=_has_offset,
        )
        return {
            by_partition[partition.topic, partition.partition]: LogEnd(answer.offset, NO_EPOCH if epoch is None else epoch)
            for partition, answer in _answered(answers, doing).items()
            for epoch in (answer.leader_epoch,)
        }

    async def _asked(
        self, ask: Callable[[float], Mapping[K, Future[T]]], doing: str, *, told: Callable[[T], bool] = lambda _: True
    ) -> dict[K, T | KafkaError]:
        """Return the answers to what `ask(seconds)` asks, which is asked anew until no answer is missing or the time is over.

        Args:
            ask: asks.
            doing: what for, for the error.
            told: whether an answer says something. Where a broker hangs, `list_offsets` has one without an offset, and no error.
        """
        seconds = self._timeouts.answer_seconds
        best: dict[K, T | KafkaError] | None = None
        over = trio.Event()

        async def try_it(until: float) -> None:
            nonlocal best
            left = until - trio.current_time()
            with suppress(BrokerUnreachable):
                found = await admin_futures(ask(left - LATE_SECONDS), doing=doing, timeout_seconds=left, timeouts=self._timeouts)
                answers = {key: answer if isinstance(answer, KafkaError) or told(answer) else _UNTOLD for key, answer in found.items()}
                if best is None or _untold(answers) <= _untold(best):
                    best = answers
                if not _untold(best):
                    over.set()

        async def learn_and_try(until: float) -> None:
            await self._learn()
            if until - trio.current_time() > LEAST_SECONDS:
                await try_it(until)

        until = trio.current_time() + seconds
        async with open_tasks() as tries:
            with trio.move_on_at(until):
                tries.start_soon(try_it, until)
                for _ in range(1, TRIES):
                    with trio.move_on_after(self._timeouts.again_seconds):
                        await over.wait()
                    if over.is_set():
                        break
                    tries.start_soon(learn_and_try, until)
                await over.wait()
        if best is None:
            raise BrokerUnreachable(f"{doing} failed: no broker answered within {seconds:g} s")
        return best

    async def _learn(self) -> None:
        """Have the AdminClient hear of another controller, once for all who want that at the same time.

        It asks for that by itself once a second, but not while it waits for one that is away: then it tries to connect without
        a pause for ten seconds (measured), and has time for nothing else.
        """
        wanted = trio.current_time()
        async with self._learning:
            if self._learned < wanted:
                self._learned = trio.current_time()
                # Who no longer wants to know does not wait for the thread: it changes nothing that anybody else uses.
                await trio.to_thread.run_sync(self._find_controller, self._admin, limiter=self._learners, abandon_on_cancel=True)

    def _find_controller(self, admin: AdminClient) -> None:
        with suppress(KafkaException):  # no broker answers: the next try tells
            for _ in range(CONTROLLERS):
                # Not of all topics: it would go on refreshing what it knows of them, every second (a tenth of a core with 6,000).
                listing = admin.list_topics(PING_TOPIC, timeout=self._timeouts.again_seconds)
                if listing.controller_id != self._controller or len(listing.brokers) == 1:
                    break
            self._controller = listing.controller_id


class EmbeddedLookup(KafkaLookup):
    """Answers the same where the broker is the embedded one, which knows neither `describe_topics` nor ids nor configurations."""

    async def epoch_ends(self, keys: Collection[PartitionKey], epoch: int) -> Mapping[PartitionKey, int]:
        """Return that they do not: the embedded broker elects nobody."""
        await trio.lowlevel.checkpoint()
        return dict.fromkeys(keys, NO_END)

    async def compacted(self, topic: str) -> bool:
        """Return that it is not: the embedded broker compacts nothing."""
        await trio.lowlevel.checkpoint()
        return False

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicFacts]:
        """Return the facts of those of `topics` that exist; see `Lookup`."""
        there = await trio.to_thread.run_sync(self._list, None, limiter=self._thread)
        return {topic: TopicFacts(topic_id=EMBEDDED_TOPIC_ID, partitions=there[topic]) for topic in topics if topic in there}


@asynccontextmanager
async def open_lookup(config: ClientConfig) -> AsyncIterator[KafkaLookup]:
    """Have questions answered for as long as the block lasts; the brokers may be away.

    Raises:
        SettingsError: librdkafka does not take `kafka.properties` as they are.
    """
    try:
        lookup = (EmbeddedLookup if config.embedded else KafkaLookup)(
            AdminClient(config.admin()), Consumer(config.consumer()), config.timeouts, EpochEnds(config)
        )
    except KafkaException as error:
        raise SettingsError(f"kafka.properties cannot be used: {error.args[0].str()}") from error
    try:
        async with open_tasks() as nursery:
            nursery.start_soon(lookup.run_log)
            yield lookup
    finally:
        lookup.close()


def _has_offset(answer: ListOffsetsResultInfo | KafkaError) -> bool:
    return isinstance(answer, KafkaError) or answer.offset != OFFSET_INVALID


def _untold(answers: Mapping[K, T | KafkaError]) -> int:
    return sum(isinstance(answer, KafkaError) and unreachable(answer) for answer in answers.values())


def _answered(answers: Mapping[K, T | KafkaError], doing: str) -> dict[K, T]:
    """Return the answers that are some; raise `BrokerUnreachable` if there are none for want of a broker."""
    found = {key: answer for key, answer in answers.items() if not isinstance(answer, KafkaError)}
    if not found:
        for error in answers.values():
            if isinstance(error, KafkaError) and unreachable(error):
                raise broker_error(error, doing)
    return found


def _some(names: Collection[object]) -> str:
    first = next(iter(names))
    return str(first) if len(names) == 1 else f"{first} and {len(names) - 1} more"
