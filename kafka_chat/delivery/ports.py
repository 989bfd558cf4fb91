"""The interfaces that the core needs: to Kafka, and to a client's connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from ..chat.resume_cursor import NO_EPOCH

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ..chat.loss_cause import LossCause
    from ..chat.partition_key import PartitionKey
    from ..chat.subscription_change import SubscriptionChange
    from .records.batch import Batch
    from .timeouts import BrokerTimeouts


EMBEDDED_TOPIC_ID = "embedded"  # for all topics of the embedded broker, where none is ever deleted


NO_EPOCHS: Mapping[int, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """A broker's description of a topic.

    Attributes:
        topic_id: its id, by which a recreated topic is recognised. `EMBEDDED_TOPIC_ID` on the embedded broker, which has no ids.
        partitions: the numbers of its partitions.
        leaderless: those of them that have no leader now.
    """

    topic_id: str
    partitions: frozenset[int]
    leaderless: frozenset[int] = frozenset()


class Lookup(Protocol):
    """Requests to the brokers that need no consumer. Each raises `BrokerUnreachable` after its timeout.

    None of them ever creates a topic.

    Attributes:
        timeouts: how long to wait for the brokers.
    """

    timeouts: BrokerTimeouts

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicFacts]:
        """Return the facts of those of `topics` that exist."""

    async def last_stable_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        """Return the last stable offsets: records below are committed, records produced from now on are at or above.

        Partitions that do not exist or have no leader are left out.
        """

    async def first_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        """Return the first offsets that still exist; partitions that do not exist or have no leader are left out."""

    def by_leader(self, keys: Collection[PartitionKey]) -> Mapping[int, Sequence[PartitionKey]]:
        """Return `keys` grouped by leader as of their last description; -1: unknown. Asks no broker."""

    async def epoch_ends(self, keys: Collection[PartitionKey], epoch: int) -> Mapping[PartitionKey, int]:
        """Return where a leader epoch ends: after its last record and those of earlier epochs.

        A client at an offset beyond this end, in that epoch, has received records that no longer exist. Partitions are left out
        that do not exist, have no leader, or whose leader has not answered in time.
        """

    async def offsets_at(self, keys: Collection[PartitionKey], time_ms: int) -> Mapping[PartitionKey, int]:
        """Return the first offsets with a timestamp at or after `time_ms` (Unix, milliseconds).

        If there is none, or the broker cannot tell, it is the last stable offset. Partitions that do not exist or have no
        leader are left out.
        """

    async def compacted(self, topic: str) -> bool:
        """Return whether a topic is compacted, so that records in its middle may vanish.

        Raises:
            BrokerError: the request is not permitted, or there is no such topic.
        """


class Cluster(Protocol):
    """The Kafka cluster that answered last: a cursor belongs to one cluster, and another may replace it.

    Attributes:
        mark: its name in cursors; None before a broker has answered.
    """

    mark: bytes | None

    async def may_be(self, mark: bytes | None) -> bool:
        """Whether a cursor with this mark may be of this cluster; asks a broker if it seems not to be.

        Raises:
            BrokerUnreachable: no broker answers.
        """


class Tail(Protocol):
    """Follows topics at their live end. One thread owns its Consumer; `follow` and `unfollow` leave requests for it."""

    def follow(self, topic: str) -> None:
        """Follow a topic, existing or not; the `TailListener` is notified of it. Idempotent."""

    def unfollow(self, topic: str) -> None:
        """Stop following it. Once this has returned, the listener gets no more events of this topic. Idempotent."""

    def partitions(self, topic: str) -> int:
        """Return how many partitions a followed topic has, also those that have had no leader yet; 0 if unknown."""


class TailListener(Protocol):
    """Is notified of the Tail's events. These are plain functions, called in the trio thread, in the order of events."""

    def topic_opened(
        self, topic: str, topic_id: str, starts: Mapping[int, int], *, created: bool, epochs: Mapping[int, int] = NO_EPOCHS
    ) -> None:
        """Note that partitions are followed from `starts` on; `append` continues there without a gap.

        Called again with more partitions of the same `topic_id` if they are added later.

        Args:
            topic: its name.
            topic_id: its id.
            starts: partition -> first offset that will be appended: its last stable offset, requested after `follow`.
            created: whether these partitions were certainly created after `follow` (absent in two listings a second apart, or
                added to a known topic); then their starts are 0.
            epochs: partition -> the epoch of the leader that gave its start, or an earlier one; unknown ones are left out.
        """

    def is_subscribed(self, topic: str) -> bool:
        """Whether a topic is followed by subscription or default; those are looked up before topics that are only named."""

    def topic_missing(self, topic: str) -> None:
        """Note that this topic is missing in a listing requested after `follow`. Called once, until it is opened."""

    def topic_lost(self, topic: str, topic_id: str, cause: LossCause | None) -> None:
        """Note that the topic was deleted (None) or recreated (`RECREATED`); its logs are closed.

        For a recreated one `topic_opened` follows, with starts of 0 and `created`.
        """

    def append(self, key: PartitionKey, batches: Sequence[Batch]) -> None:
        """Take new records: contiguous, each batch's `first` is the previous one's `next`."""

    def position_lost(self, key: PartitionKey, asked: int, first_left: int, cause: LossCause, *, epoch: int = NO_EPOCH) -> None:
        """Note that the Tail's position is lost; it continues at `first_left`, where the log must start over.

        With the cause `TRUNCATED`, the records from `first_left` on are not those that were appended.

        Args:
            key: the partition.
            asked: the lost position.
            first_left: where it continues; before `asked` if the log lost its end.
            cause: why it is lost.
            epoch: the epoch of the leader that gave `first_left`.
        """


class PageSource(Protocol):
    """Reads ranges of old records."""

    @property
    def timeouts(self) -> BrokerTimeouts:
        """How long to wait for the brokers."""

    def leader(self, key: PartitionKey) -> int:
        """Return a partition's leader as of its last description; -1: unknown. Asks no broker."""

    async def read(self, key: PartitionKey, first: int, until: int) -> Batch:
        """Read `[first, until)` or a shorter range from `first` on; never waits for new records.

        At most `BATCH_BYTES` of raw values, or one record. The batch's `next` is > `first`, and ≤ `until` if the log has a
        record at or after it. Has a time limit; a cancel takes effect within a second.

        Raises:
            PositionLost: `first` is below the log's start.
            TopicGone: there is no such partition, or the topic has been recreated.
            BrokerUnreachable: no answer in time, or no broker lists the topic now; try again.
        """


class Sink(Protocol):
    """Writes bytes to one client.

    Bytes that a socket did not take are *owed* by its connection, and precede everything written later, so no ping, pong or
    close frame is ever inside a message. A write without progress for `limits.write_seconds` aborts the connection.
    """

    def offer(self, frames: bytes) -> bool:
        """Take whole text frames; write what can be written without waiting.

        Never raises. May be called whether or not anything is owed.

        Returns:
            True: nothing is owed. False: the rest is owed (or the connection is closed); `flush` before the next offer.
        """

    async def flush(self) -> bool:
        """Wait until nothing is owed. A cancel leaves no half frame: what is owed stays owed.

        Returns:
            False if the connection is closed, and nothing more will be delivered.
        """

    async def close(self, code: int, reason: str) -> None:
        """Write what is owed and a close frame (RFC 6455 section 5.5.1), then end the connection.

        From its first step on, `offer` takes nothing. Idempotent, and no error if the client is gone; takes as long as the
        client needs to read, at most `limits.write_seconds`.

        Args:
            code: RFC 6455 section 7.4.
            reason: at most 123 bytes of UTF-8; the rest is cut off.
        """

    def abort(self) -> None:
        """End the connection now, without a close frame, even while another task is writing to it. Idempotent."""

    @property
    def owed(self) -> int:
        """How many bytes are owed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """The client is gone, or has sent a close frame.

    Attributes:
        code: RFC 6455 section 7.4; 1006 without a close frame.
        by_service: whether the server closed the connection with this code, because of what the client sent.
    """

    code: int
    by_service: bool = False


class Inbox(Protocol):
    """The messages of one client."""

    async def receive(self) -> str | bytes | Disconnect:
        """Return the next message. Not called again after a `Disconnect`."""


class KeyedRecord(NamedTuple):
    """A record to produce; a value of None is a tombstone."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Published(msgspec.Struct, frozen=True):
    """The partition and offset of an acknowledged record."""

    topic: str
    partition: int
    offset: int


class Publisher(Protocol):
    """Produces records, each acknowledged by all in-sync replicas, and written once.

    If a call raises, its records are not in the log and never will be, with one exception, which no Kafka client can rule
    out: a broker took them and then did not answer. After a cancelled call it is unknown for some seconds whether they will
    be written. No call ever creates a topic on a real broker.
    """

    async def publish(self, topic: str, record: KeyedRecord, *, partition: int | None = None) -> Published:
        """Produce one record; without `partition` its key chooses the partition.

        Raises:
            TooLarge: the client or the broker does not accept a record of that size.
            BrokerUnreachable: no acknowledgement in time, or too much is waiting for one.
            BrokerError: the broker refused it, or there is no such topic.
        """

    async def publish_together(self, topic: str, records: Sequence[KeyedRecord], *, partition: int) -> int:
        """Produce records as one batch, which a broker appends whole or not at all; return the last record's offset.

        Above 1 MB they are several batches, and an error may come after the first of them.

        Raises:
            As `publish` does.
        """


class SubscriptionLog(Protocol):
    """The subscriptions of all users, from any instance: our own tail of the subscriptions topic."""

    @property
    def ready(self) -> bool:
        """Whether it has been read up to its end at our start. Never becomes false again."""

    @property
    def position(self) -> int:
        """The first offset that `chats_of` does not include yet; 0 at first, `NOT_KNOWN` while the topic is read again."""

    @property
    def problem(self) -> str | None:
        """Why it cannot be read or written, as a sentence for the operator; None if it can."""

    async def wait_ready(self) -> None:
        """Wait until `ready`."""

    def chats_of(self, username: str) -> Mapping[str, SubscriptionChange]:
        """Return chat -> subscription of one user, without the default chats; empty if none is known."""

    async def write(self, changes: Sequence[SubscriptionChange]) -> int:
        """Produce changes, all or none; return the last one's offset.

        Raises:
            BrokerError: it is not ready, has a problem, or the changes were not acknowledged in time; see `Publisher`.
        """

    async def passed(self, offset: int) -> None:
        """Wait until `chats_of` includes the record at `offset` and all before it.

        Raises:
            TopicGone: the topic was recreated in the meantime.
        """
