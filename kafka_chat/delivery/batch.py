"""A range of one partition, decoded once, rendered once for all who take it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..chat.message import Message, Reject, parse, render
from .frames import text_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BATCH_BYTES = 256 * 1024  # of raw values; a batch has at most this many, or a single record


class PartitionKey(NamedTuple):
    """One partition of one topic: of this very topic, not of a later one with the same name."""

    topic: str
    topic_id: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class Record(NamedTuple):
    """What the core needs of a Kafka record.

    A named tuple, for a burst has a hundred thousand of them.
    """

    offset: int
    value: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A record that is no chat message."""

    offset: int
    reason: Reject


class Chunk(NamedTuple):
    """A piece of a partition, ready to be written to a client.

    Attributes:
        data: whole text frames, one a message; may be empty where a range holds no message.
        next: the position after it.
        messages: how many there are.
    """

    data: bytes
    next: int
    messages: int


class Batch:
    """The messages of `[first, next)` of one partition; the range may hold fewer, or none.

    Kafka's offsets have holes (transactions, compaction), so `next` says how far this goes, not the last message.
    Nothing in here changes after it was made, so it is shared freely, between threads, too.
    """

    __slots__ = ("_ends", "_frames", "_offsets", "first", "next", "rejected")

    def __init__(self, *, first: int, next: int, offsets: Sequence[int], frames: Sequence[bytes], rejected: Sequence[Rejected]) -> None:
        self.first = first
        self.next = next
        self.rejected = rejected
        self._offsets = offsets
        self._frames = b"".join(frames)
        ends, end = [], 0
        for frame in frames:
            end += len(frame)
            ends.append(end)
        self._ends = ends

    @classmethod
    def decode(cls, records: Iterable[Record], *, first: int, next: int, chat: str, max_bytes: int) -> Batch:
        """Parse and render records; what is no chat message becomes a reject.

        Args:
            records: in the order of their offsets, all in `[first, next)`.
            first: the position that was asked for.
            next: the position after the range, at least the last record's offset + 1.
            chat: what the frames say as `chat`.
            max_bytes: `limits.message_bytes`, for a value and for the frame that it becomes.
        """
        offsets: list[int] = []
        frames: list[bytes] = []
        rejected: list[Rejected] = []
        for offset, value in records:
            message = parse(value, max_bytes=max_bytes)
            if isinstance(message, Message):
                payload = render(message, chat)
                if len(payload) <= max_bytes:
                    offsets.append(offset)
                    frames.append(text_header(len(payload)) + payload)
                    continue
                message = Reject.TOO_LARGE
            rejected.append(Rejected(offset=offset, reason=message))
        return cls(first=first, next=next, offsets=offsets, frames=frames, rejected=rejected)

    @property
    def messages(self) -> int:
        """How many messages it holds."""
        return len(self._offsets)

    @property
    def size(self) -> int:
        """The memory that it holds, in bytes: the frames, and two numbers a message."""
        return len(self._frames) + 72 * len(self._offsets) + 256

    def since(self, position: int) -> Batch:
        """Return the part of it that lies at and after `position`, which is inside."""
        begin = bisect_left(self._offsets, position)
        starts = [0, *self._ends]
        frames = [self._frames[starts[i] : starts[i + 1]] for i in range(begin, len(self._offsets))]
        return Batch(first=position, next=self.next, offsets=self._offsets[begin:], frames=frames, rejected=())

    def whole(self) -> Chunk:
        """Return all of it, without a copy."""
        return Chunk(self._frames, self.next, len(self._offsets))

    def read(self, position: int, max_bytes: int) -> Chunk:
        """Return what lies at and after `position`: whole frames, at most `max_bytes` of them or a single one.

        Args:
            position: in `[first, next)`.
            max_bytes: where to stop.
        """
        begin = bisect_left(self._offsets, position) if position > self.first else 0
        base = self._ends[begin - 1] if begin else 0
        if len(self._frames) - base <= max_bytes:
            return Chunk(self._frames[base:], self.next, len(self._offsets) - begin)
        end = max(bisect_left(self._ends, base + max_bytes + 1), begin + 1)
        if end == len(self._offsets):
            return Chunk(self._frames[base:], self.next, end - begin)
        return Chunk(self._frames[base : self._ends[end - 1]], self._offsets[end], end - begin)
