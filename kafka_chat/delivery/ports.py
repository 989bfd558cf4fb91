"""What the core asks of the outside: of Kafka on the left, of a client's connection on the right."""

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


EMBEDDED_TOPIC_ID = "embedded"  # of the embedded broker, whose topics are never deleted, so that one identity does for all


NO_EPOCHS: Mapping[int, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """What a broker says of a topic.

    Attributes:
        topic_id: the identity; another one means another topic under the same name. `EMBEDDED_TOPIC_ID` on the embedded broker,
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
        timeouts: how long the brokers that are asked are given.
    """

    timeouts: BrokerTimeouts

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicFacts]:
        """Return the facts of those of `topics` that exist."""

    async def last_stable_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        """Return the offset below which everything is committed; what is produced from now on is at or above it.

        A partition that does not exist (any more) or has no leader is left out.
        """

    async def first_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        """Return the first offset that is left; a partition without one is left out."""

    def by_leader(self, keys: Collection[PartitionKey]) -> Mapping[int, Sequence[PartitionKey]]:
        """Return `keys` by the broker that led them when they were last described; -1: not known. Asks nobody."""

    async def epoch_ends(self, keys: Collection[PartitionKey], epoch: int) -> Mapping[PartitionKey, int]:
        """Return where a leader epoch ends: behind the last record of it and of those before it.

        Who has had what lies before an offset in that epoch, beyond this end, has had what is no longer there. Some partitions may
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


class Tail(Protocol):
    """Follows topics at their live end. One thread owns its Consumer; these two leave requests for it."""

    def follow(self, topic: str) -> None:
        """Want a topic, existing or not, followed; `TailListener` is told what is found. Idempotent."""

    def unfollow(self, topic: str) -> None:
        """No longer want it. Nothing more is told of this topic once this has returned. Idempotent."""


class TailListener(Protocol):
    """Who is told what the Tail finds. Plain functions, called in the trio thread, in the order of events."""

    def topic_opened(
        self, topic: str, topic_id: str, starts: Mapping[int, int], *, created: bool, epochs: Mapping[int, int] = NO_EPOCHS
    ) -> None:
        """These partitions are followed from these offsets on; `append` goes on from there without a hole.

        Called again with more partitions of the same `topic_id` where some are added later.

        Args:
            topic: as asked for.
            topic_id: its identity.
            starts: partition -> first offset that will be appended: its last stable offset, asked after the request.
            created: these partitions are known to have come to life after the request (absent in two listings a second
                apart, or added to a known topic): then their starts are 0.
            epochs: partition -> the epoch of the leader who told its start, or an earlier one; without those that are not known.
        """

    def is_subscribed(self, topic: str) -> bool:
        """Whether a topic is one that somebody subscribed to, or all follow: it is looked at before those that are only named."""

    def topic_missing(self, topic: str) -> None:
        """A listing that was asked for after the request lacks this topic. Told once, until it is opened."""

    def topic_lost(self, topic: str, topic_id: str, cause: LossCause | None) -> None:
        """The topic was deleted (None), or another one has taken its name (`RECREATED`); its logs are closed.

        `topic_opened` follows where there is a new one: with starts of 0 and `created`.
        """

    def append(self, key: PartitionKey, batches: Sequence[Batch]) -> None:
        """These records came: contiguous, each batch's `first` is the `next` before it."""

    def position_lost(self, key: PartitionKey, asked: int, first_left: int, cause: LossCause, *, epoch: int = NO_EPOCH) -> None:
        """The Tail's own position is gone; it goes on at `first_left`. The log must be started over there.

        Where the cause is `TRUNCATED`, what lies behind `first_left` are other records than those that were appended.

        Args:
            key: of the partition.
            asked: the position.
            first_left: where it goes on; before `asked` where the log lost its end.
            cause: why.
            epoch: of the leader who told where it goes on.
        """


class PageSource(Protocol):
    """Reads pieces of the past."""

    @property
    def timeouts(self) -> BrokerTimeouts:
        """How long the brokers that are read from are given."""

    def leader(self, key: PartitionKey) -> int:
        """Return the broker that led a partition when it was last described; -1: not known. Asks nobody."""

    async def read(self, key: PartitionKey, first: int, until: int) -> Batch:
        """Read `[first, until)` or a shorter piece that starts at `first`; never waits for news.

        At most `BATCH_BYTES` of raw values, or one record. The batch's `next` is > `first`, and ≤ `until` where the
        log has anything at or after it. Bounded in time; cancelling takes effect within a second.

        Raises:
            PositionLost: `first` is below what is left.
            TopicGone: there is no such partition, or the topic is another one by now.
            BrokerUnreachable: no answer in time, or no broker lists the topic, which may have another reason; to be asked again.
        """


class Sink(Protocol):
    """How bytes reach one client.

    What a socket did not take is *owed* by its connection and is written first, no matter who writes next: no ping, pong
    or close frame ever lands inside a message. A write that makes no progress for `limits.write_seconds` aborts the
    connection.
    """

    def offer(self, frames: bytes) -> bool:
        """Take whole text frames; write them now as far as that is possible without waiting.

        Never raises. May be called whether or not anything is owed.

        Returns:
            True: nothing is owed. False: the rest is owed (or the connection is closed); `flush` before more.
        """

    async def flush(self) -> bool:
        """Wait until nothing is owed. A cancel leaves no torn frame: what is owed stays owed.

        Returns:
            False where the connection is closed, and nothing will be delivered any more.
        """

    async def close(self, code: int, reason: str) -> None:
        """Write what is owed and a close frame (RFC 6455 section 5.5.1), then end the connection.

        From the first step on `offer` takes nothing. Idempotent, and no error if the client is gone; takes as long
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
    """The client is gone, or told us that it goes.

    Attributes:
        code: RFC 6455 section 7.4; 1006 where no close frame came.
    """

    code: int


class Inbox(Protocol):
    """What one client says."""

    async def receive(self) -> str | bytes | Disconnect:
        """Return the next message. After a `Disconnect` it is not called again."""


class KeyedRecord(NamedTuple):
    """A record to be produced; a value of None is a tombstone."""

    key: bytes | None
    value: bytes | None


class Published(msgspec.Struct, frozen=True):
    """Where a record was put, as the brokers acknowledged it."""

    topic: str
    partition: int
    offset: int


class Publisher(Protocol):
    """Produces records; each is acknowledged by all in-sync replicas, and written once.

    What a call that raises was to write is not in the log, and never will be: it gives up in time. With one exception,
    which no client of Kafka can rule out: a broker took it and then did not answer. A call that is cancelled leaves it
    open for some seconds whether it is written. No call ever creates a topic on a real broker.
    """

    async def publish(self, topic: str, record: KeyedRecord, *, partition: int | None = None) -> Published:
        """Produce one record; without `partition` its key chooses one.

        Raises:
            TooLarge: the client or the broker takes no record of that size.
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
    """Who has subscribed to what, on all instances: our own tail of the subscriptions topic."""

    @property
    def ready(self) -> bool:
        """Whether it has been read up to where it ended when we started. Never false again."""

    @property
    def position(self) -> int:
        """The next offset that `chats_of` does not know yet; 0 before anything is known."""

    @property
    def problem(self) -> str | None:
        """A sentence for the operator: what keeps it from being read, or written."""

    async def wait_ready(self) -> None:
        """Wait until `ready`."""

    def chats_of(self, username: str) -> Mapping[str, SubscriptionChange]:
        """Return chat -> subscription of one user, without what everybody follows; empty where nothing is known."""

    async def write(self, changes: Sequence[SubscriptionChange]) -> int:
        """Produce changes, all or none; return the last one's offset.

        Raises:
            BrokerError: it is not ready, has a problem, or was not acknowledged in time. See `Publisher` for what
                then holds.
        """

    async def passed(self, offset: int) -> None:
        """Wait until what was acknowledged at `offset`, and all before it, is in `chats_of`.

        Raises:
            TopicGone: the topic was recreated meanwhile.
        """
