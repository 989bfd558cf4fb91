"""Where a member wants to begin in a topic, and the start offsets known at once; `Starts` finds the others."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...chat.partition_key import PartitionKey
from ...chat.resume_cursor import NO_EPOCH, TopicOffsets, identity_of

if TYPE_CHECKING:
    from collections.abc import Mapping

LAST_SECOND = (1 << 31) - 2  # a cursor has room for 32 bits there
EARLIER_MS = 10_000  # how long before its accept a session begins if no broker answered then


@dataclass(frozen=True, slots=True)
class Latest:
    """At the head: messages produced from now on."""


@dataclass(frozen=True, slots=True)
class Earliest:
    """At the first record that still exists."""


@dataclass(frozen=True, slots=True)
class Rewind:
    """Some messages before the head, counted over all partitions of the chat.

    Attributes:
        messages: how many.
        not_after_ms: at the latest at the first record of this time, Unix milliseconds; None: no limit.
    """

    messages: int
    not_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Since:
    """At the first record of a time: Unix, in milliseconds."""

    time_ms: int


@dataclass(frozen=True, slots=True)
class AtOffsets:
    """At these offsets of this topic; other partitions, and a recreated topic, begin at 0.

    Attributes:
        topic_id: the topic's id; "" if it did not exist.
        offsets: partition -> offset.
    """

    topic_id: str
    offsets: Mapping[int, int]

    @property
    def partitions(self) -> int:
        """One more than the highest named partition; 0 if there is none."""
        return max(self.offsets, default=-1) + 1

    def offset(self, key: PartitionKey) -> int:
        """Return the first offset to deliver of this partition."""
        return self.offsets.get(key.partition, 0) if key.topic_id == self.topic_id else 0

    def recreated(self, key: PartitionKey) -> int | None:
        """Return the offset that was due in a partition of an earlier topic of this name; None if none was."""
        return None if self.topic_id in ("", key.topic_id) else self.offsets.get(key.partition)


@dataclass(frozen=True, slots=True)
class Resumed:
    """After the records that a client has received.

    Attributes:
        entry: its cursor's part for the topic.
        otherwise: where partitions begin that the cursor does not cover.
        not_before: the start of a subscription that is newer than the cursor; None without one.
    """

    entry: TopicOffsets
    otherwise: Unresumed
    not_before: AtOffsets | None = None

    def offset(self, key: PartitionKey) -> int | None:
        """Return the next offset of this partition; None if `otherwise` decides.

        A topic that was absent then or has been recreated since begins at 0, and so does a partition that was added since.
        """
        entry = self.entry
        least = 0 if self.not_before is None else self.not_before.offset(key)
        if entry.identity != identity_of(key.topic_id):
            return least
        offset = entry.next(key.partition)
        if offset is None and (not entry.whole or entry.is_unknown(key.partition)):
            return None
        return max(least, offset or 0)

    def unresumed(self, key: PartitionKey) -> Unresumed:
        """Return how a partition begins whose `offset` is None."""
        since_ms = self.entry.since_ms(key.partition) if self.entry.identity == identity_of(key.topic_id) else None
        if since_ms is None:
            return self.otherwise
        return Since(since_ms) if since_ms else EARLIEST  # also messages without a time

    def epoch(self, key: PartitionKey) -> int:
        """Return the leader epoch of its client's last record before `offset`; `NO_EPOCH` if unknown."""
        offset = self.offset(key)
        if not offset or self.entry.identity != identity_of(key.topic_id) or offset != self.entry.next(key.partition):
            return NO_EPOCH
        return self.entry.epoch(key.partition)

    def recreated(self, key: PartitionKey) -> int | None:
        """Return the offset that was due in a partition of an earlier topic of this name; None if none was.

        If the user has subscribed again since the cursor, the offset is the subscription's; or the cursor's if that is higher, and of the
        same topic or from the id of a message.
        """
        entry, again, partition = self.entry, self.not_before, key.partition
        if entry.identity == identity_of(key.topic_id):
            return None
        if again is None:
            return entry.next(partition)
        if again.topic_id == key.topic_id:
            return None
        counts = entry.is_by_id(partition) or entry.identity == identity_of(again.topic_id)
        due = (entry.next(partition) if counts else None, again.offsets.get(partition))
        return max((offset for offset in due if offset is not None), default=None)

    @property
    def partitions(self) -> int:
        """One more than the highest named partition; 0 if there is none."""
        return max(self.entry.partitions, 0 if self.not_before is None else self.not_before.partitions)


Unresumed = Latest | Earliest | Rewind | Since | AtOffsets
Start = Unresumed | Resumed


def offset_named(start: Start | None, key: PartitionKey) -> int | None:
    """Return the offset that a start names for a partition; None if a broker or the log decides."""
    return start.offset(key) if isinstance(start, AtOffsets | Resumed) else None


def epoch_named(start: Start | None, key: PartitionKey) -> int:
    """Return the leader epoch of `offset_named`; `NO_EPOCH` if there is none."""
    return start.epoch(key) if isinstance(start, Resumed) else NO_EPOCH


def since_named(start: Start | None, key: PartitionKey, joined_ms: int) -> int:
    """Return the time, in Unix seconds, since which messages of a partition are due of which `offset_named` is None.

    Args:
        start: the start; None: there is none.
        key: a partition without a leader, so without a log.
        joined_ms: when the follower joined, Unix milliseconds; nothing of the partition was acknowledged between that and its next leader.
    """
    match start:
        case Resumed():
            since_ms = start.entry.since_ms(key.partition) if start.entry.identity == identity_of(key.topic_id) else None
            return since_named(start.otherwise, key, joined_ms) if since_ms is None else since_ms // 1000
        case Since(time_ms):
            return min(max(0, time_ms // 1000), LAST_SECOND)
        case Earliest():
            return 0
        case Latest() | Rewind():
            return min(max(0, (joined_ms - EARLIER_MS) // 1000), LAST_SECOND)
    return NO_EPOCH


def partitions_named(start: Start | None, topic_id: str) -> int:
    """Return one more than the highest partition of this topic that a start names; 0 if it names none."""
    if isinstance(start, AtOffsets):
        return start.partitions if start.topic_id == topic_id else 0
    if isinstance(start, Resumed):
        entered = start.entry.partitions if start.entry.identity == identity_of(topic_id) else 0
        return max(entered, partitions_named(start.not_before, topic_id))
    return 0


def is_of(start: Start, topic_id: str) -> bool:
    """Whether a start may be of this topic; False if it names only earlier or later topics of its name."""
    if isinstance(start, AtOffsets):
        return start.topic_id == topic_id
    return (
        not isinstance(start, Resumed)
        or start.entry.identity == identity_of(topic_id)
        or (start.not_before is not None and is_of(start.not_before, topic_id))
    )


def offsets_due(start: Start, topic: str, topic_id: str) -> dict[PartitionKey, int]:
    """Return the offsets that a start names in a topic; the records from there on are lost with the topic."""
    if isinstance(start, AtOffsets) and start.topic_id == topic_id:
        return {PartitionKey(topic, topic_id, partition): offset for partition, offset in start.offsets.items()}
    due: dict[PartitionKey, int] = {}
    if isinstance(start, Resumed):
        otherwise = offsets_due(start.otherwise, topic, topic_id)
        for key in (PartitionKey(topic, topic_id, partition) for partition in range(partitions_named(start, topic_id))):
            offset = start.offset(key)
            offset = otherwise.get(key) if offset is None else offset
            if offset is not None:
                due[key] = offset
    return due


def rather_early(start: Start, since: Since) -> Start:
    """Return the start of a member that is accepted before a broker answers: early enough to miss nothing acknowledged later."""
    match start:
        case Latest():
            return since
        case Rewind(messages):
            return Rewind(messages, not_after_ms=since.time_ms)
        case Resumed(entry, Latest() | Rewind() as otherwise, not_before):
            return Resumed(entry, Rewind(otherwise.messages, since.time_ms) if isinstance(otherwise, Rewind) else since, not_before)
    return start


LATEST = Latest()
EARLIEST = Earliest()
FROM_ZERO = AtOffsets("", {})  # the start in a topic that was created after it was followed


def some_seconds_ago() -> Since:
    """Return the start of a session for which no broker answers: `EARLIER_MS` before now."""
    return Since((time.time_ns() // 1_000_000 - EARLIER_MS) // 1000 * 1000)  # whole seconds, so that sessions ask together
