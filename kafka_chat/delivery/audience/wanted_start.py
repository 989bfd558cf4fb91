"""Where somebody wants to begin in a topic, and what of that is an offset already: of the rest `Starts` makes one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...chat.partition_key import PartitionKey
from ...chat.resume_cursor import NO_EPOCH, TopicOffsets, identity_of

if TYPE_CHECKING:
    from collections.abc import Mapping

EARLIER_MS = 10_000  # how much before the accept a session begins that was accepted while no broker could be asked


@dataclass(frozen=True, slots=True)
class Latest:
    """At the head: what is produced from now on."""


@dataclass(frozen=True, slots=True)
class Earliest:
    """At the first record that is left."""


@dataclass(frozen=True, slots=True)
class Rewind:
    """So many messages before the head, over all partitions of the chat.

    Attributes:
        messages: how many.
        not_after_ms: and at the first record of this time at the latest, Unix, in milliseconds; None: no such bound.
    """

    messages: int
    not_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Since:
    """At the first record of a time: Unix, in milliseconds."""

    time_ms: int


@dataclass(frozen=True, slots=True)
class AtOffsets:
    """At these offsets of this very topic; partitions that are not named, and another topic, begin at 0.

    Attributes:
        topic_id: whose offsets they are; "" where there was no such topic.
        offsets: partition -> offset.
    """

    topic_id: str
    offsets: Mapping[int, int]

    def offset(self, key: PartitionKey) -> int:
        """Return the first offset to deliver of this partition."""
        return self.offsets.get(key.partition, 0) if key.topic_id == self.topic_id else 0


@dataclass(frozen=True, slots=True)
class Resumed:
    """After what a client has had.

    Attributes:
        entry: where its cursor stands in the topic.
        otherwise: how a partition begins that the cursor does not stand for.
        not_before: where the client subscribed again since that cursor; None where it did not.
    """

    entry: TopicOffsets
    otherwise: Unresumed
    not_before: AtOffsets | None = None

    def offset(self, key: PartitionKey) -> int | None:
        """Return the next offset of this partition; None where `otherwise` says.

        A topic that was absent then, or is another one now, begins at 0, and so does a partition that was added since.
        """
        entry = self.entry
        least = 0 if self.not_before is None else self.not_before.offset(key)
        if entry.identity != identity_of(key.topic_id):
            return least
        offset = entry.next(key.partition)
        if offset is None and (not entry.whole or entry.is_unknown(key.partition)):
            return None
        return max(least, offset or 0)

    def epoch(self, key: PartitionKey) -> int:
        """Return the leader epoch of what its client has had last before `offset`; `NO_EPOCH` where that is not known."""
        offset = self.offset(key)
        if not offset or self.entry.identity != identity_of(key.topic_id) or offset != self.entry.next(key.partition):
            return NO_EPOCH
        return self.entry.epoch(key.partition)

    def recreated(self, key: PartitionKey) -> int | None:
        """Return the offset that is due of a partition whose topic is another one now; None where that is not so."""
        if self.not_before is not None or self.entry.identity in (None, identity_of(key.topic_id)):
            return None
        return self.entry.next(key.partition)


Unresumed = Latest | Earliest | Rewind | Since | AtOffsets
Start = Unresumed | Resumed


def offset_named(start: Start | None, key: PartitionKey) -> int | None:
    """Return the offset that a start itself names for a partition; None where a broker or the log has to tell it."""
    return start.offset(key) if isinstance(start, AtOffsets | Resumed) else None


def epoch_named(start: Start | None, key: PartitionKey) -> int:
    """Return the leader epoch that goes with `offset_named`; `NO_EPOCH` where none does."""
    return start.epoch(key) if isinstance(start, Resumed) else NO_EPOCH


def partitions_named(start: Start | None, topic_id: str) -> int:
    """Return one more than the highest partition of this topic that a start names; 0 where it names none."""
    if isinstance(start, AtOffsets) and start.topic_id == topic_id:
        return max(start.offsets, default=-1) + 1
    if isinstance(start, Resumed) and start.entry.identity == identity_of(topic_id):
        return start.entry.partitions
    return 0


def offsets_due(start: Start, topic: str, topic_id: str) -> dict[PartitionKey, int]:
    """Return the offsets that a start names of a topic, or of another one that had its name before: they are due, and lost with it."""
    if isinstance(start, AtOffsets):
        return {PartitionKey(topic, topic_id, partition): offset for partition, offset in start.offsets.items()} if start.topic_id else {}
    due: dict[PartitionKey, int] = {}
    if isinstance(start, Resumed) and start.entry.identity is not None:
        for key in (PartitionKey(topic, topic_id, partition) for partition in range(start.entry.partitions)):
            offset = start.offset(key) if start.entry.identity == identity_of(topic_id) else start.recreated(key)
            if offset is not None:
                due[key] = offset
    return due


def rather_early(start: Start, since: Since) -> Start:
    """Return how somebody begins, whom no broker has told of the topic by the accept, so that what is acknowledged after it is had."""
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
FROM_ZERO = AtOffsets("", {})  # the start of a topic that came to life after it was followed


def some_seconds_ago() -> Since:
    """Return where a session begins that no broker could be asked for: `EARLIER_MS` before now."""
    return Since((time.time_ns() // 1_000_000 - EARLIER_MS) // 1000 * 1000)  # whole seconds: five thousand sessions ask as one
