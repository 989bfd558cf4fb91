"""A range of one partition, decoded once, rendered once a form for all who take it."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ...chat.cursor import MessageIds
from ...chat.message import Delivery, Message, Reject, parse, render
from .formats import PLAIN, Format, RecordMeta, View, event, payload_of, text_frame, v1_payload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ...chat.partition_key import PartitionKey

BATCH_BYTES = 256 * 1024  # of raw values; a batch has at most this many, or a single record
VIEWS_KEPT = 8  # filtered renderings that a batch remembers


class Record(NamedTuple):
    """What the core needs of a Kafka record.

    A named tuple, for a burst has a hundred thousand of them. The time is in Unix milliseconds, negative where there is none.
    """

    offset: int
    value: bytes | None
    time_ms: int = -1
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A record that is no chat message."""

    offset: int
    reason: Reject


class Chunk(NamedTuple):
    """A piece of a partition, ready to be written to a client.

    Attributes:
        data: whole messages in the form that was asked for; may be empty where a range holds no message.
        next: the position after it.
        messages: how many there are.
    """

    data: bytes
    next: int
    messages: int


class HistoryMessage(NamedTuple):
    """One message by itself, in the form of v1.

    Attributes:
        time_ms: Unix, milliseconds; negative where the record has none.
        offset: of its record.
        payload: JSON.
    """

    time_ms: int
    offset: int
    payload: bytes


class _Rendering:
    """Messages in one form: joined, and where each ends."""

    __slots__ = ("data", "ends", "offsets")

    def __init__(self, offsets: Sequence[int], pieces: Sequence[bytes]) -> None:
        self.offsets = offsets
        self.data = b"".join(pieces)
        self.ends: list[int] = []
        end = 0
        for piece in pieces:
            end += len(piece)
            self.ends.append(end)

    def piece(self, index: int) -> bytes:
        return self.data[self.ends[index - 1] if index else 0 : self.ends[index]]

    def pieces(self, begin: int = 0) -> list[bytes]:
        return [self.piece(index) for index in range(begin, len(self.offsets))]


class Batch:
    """The messages of `[first, next)` of one partition; the range may hold fewer, or none.

    Kafka's offsets have holes (transactions, compaction), so `next` says how far this goes, not the last message. What it
    says never changes after it was made; forms other than the bare one are rendered on first need, in the trio thread.
    """

    __slots__ = ("_headers", "_key", "_keys", "_other", "_plain", "_said", "_times", "first", "next", "rejected")

    def __init__(
        self, key: PartitionKey, *, first: int, next: int, records: Sequence[Record], frames: Sequence[bytes], rejected: Sequence[Rejected]
    ) -> None:
        self.first = first
        self.next = next
        self.rejected = rejected
        self._key = key
        self._plain = _Rendering([record.offset for record in records], frames)
        # Not the records themselves: they would be half of the memory.
        self._times = array("q", [record.time_ms for record in records])
        self._keys = [record.key for record in records]
        self._headers = {record.offset: record.headers for record in records if record.headers}
        self._other: dict[View, _Rendering] | None = None
        self._said: list[tuple[str, str | None]] | None = None  # sender and tag

    @classmethod
    def decode(cls, records: Iterable[Record], key: PartitionKey, *, first: int, next: int, chat: str, max_bytes: int) -> Batch:
        """Parse and render records; what is no chat message becomes a reject.

        Args:
            records: in the order of their offsets, all in `[first, next)`.
            key: which partition.
            first: the position that was asked for.
            next: the position after the range, at least the last record's offset + 1.
            chat: what the frames say as `chat`.
            max_bytes: `limits.message_bytes`, for a value and for the bare frame that it becomes.
        """
        kept: list[Record] = []
        frames: list[bytes] = []
        rejected: list[Rejected] = []
        for record in records:
            message = parse(record.value, max_bytes=max_bytes)
            if isinstance(message, Message):
                payload = render(message, chat)
                if len(payload) <= max_bytes:
                    kept.append(record)
                    frames.append(text_frame(payload))
                    continue
                message = Reject.TOO_LARGE
            rejected.append(Rejected(offset=record.offset, reason=message))
        return cls(key, first=first, next=next, records=kept, frames=frames, rejected=rejected)

    @property
    def messages(self) -> int:
        """How many messages it holds."""
        return len(self._plain.offsets)

    @property
    def size(self) -> int:
        """The memory that it holds, in bytes, nearly: renderings, two numbers a message for each, times and keys."""
        size = len(self._plain.data) + 160 * len(self._plain.offsets) + 256
        if self._headers:
            size += sum(200 + sum(100 + len(value or b"") for _, value in headers) for headers in self._headers.values())
        if self._other:
            size += sum(len(other.data) + 72 * len(other.offsets) + 256 for other in self._other.values())
        return size

    def since(self, position: int) -> Batch:
        """Return the part of it that lies at and after `position`, which is inside."""
        begin = bisect_left(self._plain.offsets, position)
        records = [Record(self._plain.offsets[i], None, *self._meta(i)) for i in range(begin, self.messages)]
        return Batch(self._key, first=position, next=self.next, records=records, frames=self._plain.pieces(begin), rejected=())

    def has_rendered(self, view: View) -> bool:
        """Whether what `view` shows is there, and need not be rendered first."""
        return view is PLAIN or view == PLAIN or (self._other is not None and view in self._other)

    def whole(self, view: View = PLAIN) -> Chunk:
        """Return all of it, without a copy."""
        shown = self._shown(view)
        return Chunk(shown.data, self.next, len(shown.offsets))

    def read(self, position: int, max_bytes: int, view: View = PLAIN, *, end: int | None = None) -> Chunk:
        """Return what lies at and after `position`: whole messages, at most `max_bytes` of them or a single one.

        Args:
            position: in `[first, next)`.
            max_bytes: where to stop.
            view: in which form, and which messages.
            end: nothing at or above this offset, which is above `position`; None: no such bound.
        """
        shown = self._shown(view)
        offsets, ends = shown.offsets, shown.ends
        begin = bisect_left(offsets, position) if position > self.first else 0
        stop, after = len(offsets), self.next
        if end is not None and end < after:
            stop, after = bisect_left(offsets, end), end
        if begin >= stop:
            return Chunk(b"", after, 0)
        base = ends[begin - 1] if begin else 0
        if ends[stop - 1] - base > max_bytes:
            cut = max(bisect_left(ends, base + max_bytes + 1), begin + 1)
            if cut < stop:
                return Chunk(shown.data[base : ends[cut - 1]], offsets[cut], cut - begin)
        return Chunk(shown.data[base : ends[stop - 1]], after, stop - begin)

    def history_messages(self, view: View, *, first: int, end: int) -> Iterator[HistoryMessage]:
        """Yield each message of `[first, end)` that `view`, of the form V1, shows."""
        shown = self._shown(view)
        at = 0
        for index in range(bisect_left(shown.offsets, first), bisect_left(shown.offsets, end)):
            offset = shown.offsets[index]
            at = bisect_left(self._plain.offsets, offset, at)
            yield HistoryMessage(self._times[at], offset, payload_of(shown.piece(index)))

    def _shown(self, view: View) -> _Rendering:
        if view is PLAIN or view == PLAIN:
            return self._plain
        if self._other is None:
            self._other = {}
        shown = self._other.get(view)
        if shown is None:
            shown = self._filtered(view) if view.filtered else self._rendered(view.format)
            if view.filtered and sum(kept.filtered for kept in self._other) >= VIEWS_KEPT:
                del self._other[next(kept for kept in self._other if kept.filtered)]
            self._other[view] = shown
        return shown

    def _filtered(self, view: View) -> _Rendering:
        """Cut what a view shows from what all see in its form."""
        if self._said is None:
            messages = map(_decode, map(payload_of, self._plain.pieces()))
            self._said = [(message.sender, message.tag) for message in messages]
        whole = self._shown(View(format=view.format))
        shown = [index for index, (sender, tag) in enumerate(self._said) if view.shows(sender, tag)]
        return _Rendering([whole.offsets[index] for index in shown], [whole.piece(index) for index in shown])

    def _rendered(self, format: Format) -> _Rendering:
        """Render all messages in another form than the bare one."""
        ids = MessageIds(*self._key)
        pieces = []
        for index, offset in enumerate(self._plain.offsets):
            payload = v1_payload(payload_of(self._plain.piece(index)), ids, self._key.partition, offset, self._meta(index))
            pieces.append(text_frame(payload) if format is Format.V1 else event(payload, ids, offset))
        return _Rendering(self._plain.offsets, pieces)

    def _meta(self, index: int) -> RecordMeta:
        return RecordMeta(self._times[index], self._keys[index], self._headers.get(self._plain.offsets[index]) or ())


_decode = msgspec.json.Decoder(Delivery).decode
