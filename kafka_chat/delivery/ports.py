"""What the core asks of the outside: of Kafka, and of a client's connection."""

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


EMBEDDED_TOPIC_ID = "embedded"  # on the embedded broker, whose topics are never deleted, so one id serves for all


NO_EPOCHS: Mapping[int, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """What a broker says of a topic.

    Attributes:
        topic_id: its id; a different one means another topic under the same name. `EMBEDDED_TOPIC_ID` on the embedded broker,
            which has no ids.
        partitions: their numbers.
        leaderless: those of them that have no leader now.
    """

    topic_id: str
    partitions: frozenset[int]
    leaderless: frozenset[int] = frozenset()


class Lookup(Protocol):
    """Questions to the brokers that need no consumer. Every one raises `BrokerUnreachable` after its timeout.

    Nothing here ever creates a topic.

    Attributes:
        timeouts: how long to wait for the brokers.
    """

    timeouts: BrokerTimeouts

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicFacts]:
        """Return the facts of those of `topics` that exist."""

    async def last_stable_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        """Return the offset below which everything is committed; records produced from now on are at or above it.

        A partition that does not exist (any more) or has no leader is left out.
        """

    async def first_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        """Return the first offset that is left; a partition without one is left out."""

    def by_leader(self, keys: Collection[PartitionKey]) -> Mapping[int, Sequence[PartitionKey]]:
        """Return `keys` by the broker that led them when last described; -1: unknown. Asks no broker."""

    async def epoch_ends(self, keys: Collection[PartitionKey], epoch: int) -> Mapping[PartitionKey, int]:
        """Return where a leader epoch ends: after its last record and those of earlier epochs.

        A client at an offset beyond this end, in that epoch, has received records that no longer exist. Some partitions may
        be left out: those that do not exist or have no leader, and those whose leader has not answered in time.
        """

    async def offsets_at(self, keys: Collection[PartitionKey], time_ms: int) -> Mapping[PartitionKey, int]:
        """Return the first offset whose timestamp is at or after `time_ms` (Unix, milliseconds).

        Where there is none, and where the broker cannot tell, the last stable offset; a partition that does not
        exist or has no leader is left out.
        """

    async def compacted(self, topic: str) -> bool:
        """Return whether a topic is compacted, so that records may vanish out of its middle.

        Raises:
            BrokerError: we may not ask, or there is no such topic.
        """


class Cluster(Protocol):
    """The Kafka cluster that answered last: a cursor belongs to one, and another one may take its place.

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
    """Follows topics at their live end. One thread owns its Consumer; these two leave requests for it."""

    def follow(self, topic: str) -> None:
        """Follow a topic, existing or not; the `TailListener` hears what is found. Idempotent."""

    def unfollow(self, topic: str) -> None:
        """Stop following it. The listener hears nothing more of this topic once this has returned. Idempotent."""


class TailListener(Protocol):
    """Receives what the Tail finds. Plain functions, called in the trio thread, in the order of events."""

    def topic_opened(
        self, topic: str, topic_id: str, starts: Mapping[int, int], *, created: bool, epochs: Mapping[int, int] = NO_EPOCHS
    ) -> None:
        """These partitions are followed from these offsets on; `append` continues from there without a hole.

        Called again with more partitions of the same `topic_id` where some are added later.

        Args:
            topic: as asked for.
            topic_id: its identity.
            starts: partition -> first offset that will be appended: its last stable offset, asked after the request.
            created: these partitions are known to have been created after the request (absent in two listings a second
                apart, or added to a known topic): then their starts are 0.
            epochs: partition -> the epoch of the leader that gave its start, or an earlier one; unknown ones are left out.
        """

    def is_subscribed(self, topic: str) -> bool:
        """Whether somebody follows a topic by subscription or default: it is looked at before topics that are only named."""

    def topic_missing(self, topic: str) -> None:
        """A listing requested after `follow` lacks this topic. Called once, until it is opened."""

    def topic_lost(self, topic: str, topic_id: str, cause: LossCause | None) -> None:
        """The topic was deleted (None), or another one has taken its name (`RECREATED`); its logs are closed.

        If there is a new one, `topic_opened` follows, with starts of 0 and `created`.
        """

    def append(self, key: PartitionKey, batches: Sequence[Batch]) -> None:
        """New records: contiguous, each batch's `first` is the `next` of the one before."""

    def position_lost(self, key: PartitionKey, asked: int, first_left: int, cause: LossCause, *, epoch: int = NO_EPOCH) -> None:
        """The Tail's own position is gone; it continues at `first_left`. The log must start over there.

        With the cause `TRUNCATED`, the records from `first_left` on are not those that were appended.

        Args:
            key: of the partition.
            asked: the position.
            first_left: where it continues; before `asked` if the log lost its end.
            cause: why.
            epoch: of the leader that gave `first_left`.
        """


class PageSource(Protocol):
    """Reads pieces of the past."""

    @property
    def timeouts(self) -> BrokerTimeouts:
        """How long to wait for the brokers."""

    def leader(self, key: PartitionKey) -> int:
        """Return the broker that led a partition when last described; -1: unknown. Asks no broker."""

    async def read(self, key: PartitionKey, first: int, until: int) -> Batch:
        """Read `[first, until)` or a shorter piece that starts at `first`; never waits for news.

        At most `BATCH_BYTES` of raw values, or one record. The batch's `next` is > `first`, and ≤ `until` where the
        log has anything at or after it. Bounded in time; cancelling takes effect within a second.

        Raises:
            PositionLost: `first` is below what is left.
            TopicGone: there is no such partition, or the topic is another one by now.
            BrokerUnreachable: no answer in time, or no broker lists the topic now; read it again.
        """


class Sink(Protocol):
    """Writes bytes to one client.

    What a socket did not take is *owed* by its connection and is written first, no matter who writes next: no ping, pong
    or close frame ever lands inside a message. A write that makes no progress for `limits.write_seconds` aborts the
    connection.
    """

    def offer(self, frames: bytes) -> bool:
        """Take whole text frames; write now what can be written without waiting.

        Never raises. May be called whether or not anything is owed.

        Returns:
            True: nothing is owed. False: the rest is owed (or the connection is closed); `flush` before more.
        """

    async def flush(self) -> bool:
        """Wait until nothing is owed. A cancel leaves no torn frame: what is owed stays owed.

        Returns:
            False if the connection is closed, and nothing will be delivered any more.
        """

    async def close(self, code: int, reason: str) -> None:
        """Write what is owed and a close frame (RFC 6455 section 5.5.1), then end the connection.

        From its first step on `offer` takes nothing. Idempotent, and no error if the client is gone; takes as long
        as the client needs to read, at most `limits.write_seconds`.

        Args:
            code: RFC 6455 section 7.4.
            reason: at most 123 bytes of UTF-8; cut there.
        """

    def abort(self) -> None:
        """End the connection now, without a close frame, also while another task is writing to it. Idempotent."""

    @property
    def owed(self) -> int:
        """How many bytes are owed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """The client is gone, or has said that it leaves.

    Attributes:
        code: RFC 6455 section 7.4; 1006 without a close frame.
        by_service: the server has closed it with this code, for what the client sent.
    """

    code: int
    by_service: bool = False


class Inbox(Protocol):
    """The messages of one client."""

    async def receive(self) -> str | bytes | Disconnect:
        """Return the next message. After a `Disconnect` it is not called again."""


class KeyedRecord(NamedTuple):
    """A record to be produced; a value of None is a tombstone."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Published(msgspec.Struct, frozen=True):
    """Where a record was put, as the brokers acknowledged it."""

    topic: str
    partition: int
    offset: int


class Publisher(Protocol):
    """Produces records; each is acknowledged by all in-sync replicas, and written once.

    If a call raises, its records are not in the log and never will be: it gives up in time. With one exception,
    which no client of Kafka can rule out: a broker took them and then did not answer. A cancelled call leaves it
    open for some seconds whether they are written. No call ever creates a topic on a real broker.
    """

    async def publish(self, topic: str, record: KeyedRecord, *, partition: int | None = None) -> Published:
        """Produce one record; without `partition` its key chooses one.

        Raises:
            TooLarge: the client or the broker does not accept a record of that size.
            BrokerUnreachable: no acknowledgement in time, or too much is waiting for one.
            BrokerError: the broker refused it, or there is no such topic.
        """

    async def publish_together(self, topic: str, records: Sequence[KeyedRecord], *, partition: int) -> int:
        """Produce records as one batch, which a broker appends whole or not at all; return the last one's offset.

        Above 1 MB it takes several batches, and an error may come after the first of them.

        Raises:
            As `publish` does.
        """


class SubscriptionLog(Protocol):
    """The subscriptions of all users, made on any instance: our own tail of the subscriptions topic."""

    @property
    def ready(self) -> bool:
        """Whether it has been read up to where it ended when we started. Never false again."""

    @property
    def position(self) -> int:
        """The next offset that `chats_of` does not know yet; 0 before anything is known, `NOT_KNOWN` while the topic is read again."""

    @property
    def problem(self) -> str | None:
        """A sentence for the operator: why it cannot be read or written."""

    async def wait_ready(self) -> None:
        """Wait until `ready`."""

    def chats_of(self, username: str) -> Mapping[str, SubscriptionChange]:
        """Return chat -> subscription of one user, without the default chats; empty if nothing is known."""

    async def write(self, changes: Sequence[SubscriptionChange]) -> int:
        """Produce changes, all or none; return the last one's offset.

        Raises:
            BrokerError: it is not ready, has a problem, or was not acknowledged in time. See `Publisher` for what
                then holds.
        """

    async def passed(self, offset: int) -> None:
        """Wait until `chats_of` includes the record acknowledged at `offset` and all before it.

        Raises:
            TopicGone: the topic was recreated in the meantime.
        """
