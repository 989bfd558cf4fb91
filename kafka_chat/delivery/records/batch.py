"""A range of one partition, decoded once, and rendered once per format for all clients."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from sys import getsizeof
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ...chat.leader_epochs import epoch_of
from ...chat.message import Delivery, LeftOut, Message, Reject, parse, render
from ...chat.names import comparable
from ...chat.resume_cursor import NO_EPOCH, MessageIds
from .formats import PLAIN, Bound, Format, View, event, payload_of, skipped_event, text_frame
from .record_meta import META_BYTES, SMALL_KEY_BYTES, RecordMeta, fit, is_small, skipped_payload, v1_payload
from .rendering import Rendering

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ...chat.leader_epochs import EpochRun
    from ...chat.partition_key import PartitionKey
    from .record import Record

BATCH_BYTES = 256 * 1024  # the most raw bytes of a batch, unless it is a single record
VIEWS_KEPT = 8  # filtered renderings that a batch remembers
TIMES_A_READ = 2048  # messages whose time one read checks: a millisecond


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A record that is not a chat message."""

    offset: int
    reason: Reject


class Shortened(NamedTuple):
    """A message whose `meta` lacks a part of its record."""

    offset: int
    what: Sequence[LeftOut]


@dataclass(slots=True)  # neither frozen nor a tuple, which are slower to make and to read: each offer reads all of it
class Chunk:
    """A range of a partition, ready to be written to a client.

    Attributes:
        data: whole messages in the requested format; empty if the range has none.
        next: the position after the range.
        messages: the number of messages.
    """

    data: bytes
    next: int
    messages: int


class HistoryMessage(NamedTuple):
    """One message in the v1 format.

    Attributes:
        time_ms: Unix, milliseconds; negative if the record has none.
        offset: its record's offset.
        payload: JSON.
    """

    time_ms: int
    offset: int
    payload: bytes


class Mark(NamedTuple):
    """The position of a message, without its content."""

    time_ms: int
    offset: int


class _Extra(NamedTuple):
    """Rare parts of a message.

    Attributes:
        meta: headers, and what is left out.
        notice: what replaces a message whose frame is too large with `meta`; None if it fits.
    """

    meta: RecordMeta
    notice: bytes | None


class _Kept:
    """The messages of a batch under construction, a list per part; keeping the records would take twice the memory."""

    __slots__ = ("epochs", "extras", "frames", "keys", "offsets", "times")

    def __init__(self) -> None:
        self.offsets = array("q")
        self.times = array("q")
        self.keys: list[bytes | None] = []
        self.frames: list[bytes] = []
        self.extras: dict[int, _Extra] = {}
        self.epochs: Sequence[EpochRun] = ()


_NO_EXTRAS: Mapping[int, _Extra] = {}


class Batch:
    """The messages of the range `[first, next)` of one partition, possibly fewer than offsets, or none.

    Kafka's offsets have gaps (transactions, compaction), so `next`, not the last message, is its end. Its content never
    changes; formats other than the bare one are rendered on first use, in the trio thread.

    Attributes:
        first: the first offset of its range.
        next: the offset after its range.
        rejected: records that are not chat messages, until `forget_rejected`.
        shortened: messages whose `meta` lacks a part, until `forget_rejected`.
        epochs: the leader epochs of its records, rejected ones included, by ascending offset.
        size: its memory, in bytes.
    """

    __slots__ = (
        "__weakref__", "_extras", "_key", "_keys", "_other", "_plain", "_said", "_times",
        "epochs", "first", "next", "rejected", "shortened", "size",
    )  # fmt: skip

    def __init__(
        self,
        key: PartitionKey,
        *,
        first: int,
        next: int,
        kept: _Kept,
        rejected: Sequence[Rejected] = (),
        shortened: Sequence[Shortened] = (),
    ) -> None:
        self.first = first
        self.next = next
        self.rejected = rejected
        self.shortened = shortened
        self.epochs = kept.epochs
        self._key = key
        self._plain = Rendering(kept.offsets, kept.frames)
        self._times = kept.times
        self._keys = kept.keys if kept.keys.count(None) < len(kept.keys) else None
        self._extras = kept.extras or _NO_EXTRAS
        self._other: dict[View, Rendering] | None = None
        self._said: list[tuple[str, str | None]] | None = None  # sender and tag
        self.size = self._first_size()

    @classmethod
    def decode(cls, records: Iterable[Record], key: PartitionKey, *, first: int, next: int, chat: str, max_bytes: int) -> Batch:
        """Parse and render records; one that is not a chat message becomes a reject.

        So does one whose offset is not above those of the records before it: a producer writes the offsets within its batch, and
        brokers take any. Everything that reads a batch relies on their order.

        Args:
            records: as the Kafka client returns them.
            key: the partition.
            first: the requested position.
            next: the position after the range, above all offsets in it.
            chat: the `chat` field of the frames.
            max_bytes: `limits.message_bytes`, for a value, and for the message in each format.
        """
        kept = _Kept()
        offsets, times, keys, frames = kept.offsets, kept.times, kept.keys, kept.frames  # looked up once, because a burst has many records
        rejected: list[Rejected] = []
        shortened: list[Shortened] = []
        ids: MessageIds | None = None
        roomy = max_bytes - META_BYTES  # a payload of this size leaves room for any `meta`
        ended: list[EpochRun] = []
        current, last = NO_EPOCH, first - 1
        for offset, value, time_ms, record_key, headers, unreadable, epoch in records:
            if offset <= last:
                rejected.append(Rejected(offset=offset, reason=Reject.OUT_OF_ORDER))
                continue
            if epoch != current:
                if current != NO_EPOCH:
                    ended.append((last, current))
                current = epoch
            last = offset
            message = parse(value, max_bytes=max_bytes)
            if not isinstance(message, Message):
                reason = Reject.CANNOT_BE_READ if LeftOut.MESSAGE in unreadable else message
                rejected.append(Rejected(offset=offset, reason=reason))
                continue
            payload = render(message, chat)
            size = len(payload)
            if size > max_bytes:
                rejected.append(Rejected(offset=offset, reason=Reject.TOO_LARGE))
                continue
            offsets.append(offset)
            times.append(time_ms)
            frames.append(text_frame(payload))
            bare = not headers and not unreadable and (record_key is None or len(record_key) <= SMALL_KEY_BYTES)
            if bare and (size <= roomy or is_small(record_key, max_bytes - size)):
                keys.append(record_key)
                continue
            ids = ids or MessageIds(*key)
            meta = RecordMeta(time_ms, record_key, epoch=epoch)
            fitted = fit(
                payload, meta, headers or (), unreadable,
                ids=ids, partition=key.partition, offset=offset, max_bytes=max_bytes,
            )  # fmt: skip
            keys.append(fitted.meta.key)
            if fitted.what:
                shortened.append(Shortened(offset, fitted.what))
            notice = None if fitted.fits else skipped_payload(chat, ids, key.partition, offset, meta)
            if notice is not None or fitted.meta != meta:
                kept.extras[offset] = _Extra(fitted.meta, notice)
        kept.epochs = (*ended, (last, current)) if current != NO_EPOCH else tuple(ended)
        return cls(key, first=first, next=next, kept=kept, rejected=rejected, shortened=shortened)

    @classmethod
    def empty(cls, key: PartitionKey, *, first: int, next: int) -> Batch:
        """Return a batch without messages."""
        return cls(key, first=first, next=next, kept=_Kept())

    @property
    def messages(self) -> int:
        """How many messages it has."""
        return len(self._plain.offsets)

    def forget_rejected(self) -> None:
        """Drop the rejected and shortened records once they are reported: there may be many."""
        self.size -= TOLD_BYTES * (len(self.rejected) + len(self.shortened))
        self.rejected = self.shortened = ()

    def since(self, position: int) -> Batch:
        """Return its part from `position` on, which is inside its range."""
        begin = bisect_left(self._plain.offsets, position)
        part = _Kept()
        part.offsets, part.times = self._plain.offsets[begin:], self._times[begin:]
        part.keys = [] if self._keys is None else self._keys[begin:]
        part.frames = self._plain.pieces(begin)
        part.epochs = self.epochs
        part.extras = {offset: extra for offset, extra in self._extras.items() if offset >= position}
        return Batch(self._key, first=position, next=self.next, kept=part)

    def has_rendered(self, view: View) -> bool:
        """Whether `view` is rendered already."""
        return view is PLAIN or view == PLAIN or (self._other is not None and view in self._other)

    def whole(self, view: View = PLAIN) -> Chunk:
        """Return all of it, without a copy."""
        shown = self._shown(view)
        return Chunk(shown.data, self.next, len(shown.offsets))

    def read(self, position: int, max_bytes: int, view: View = PLAIN, *, bound: Bound | None = None) -> Chunk:
        """Return whole messages from `position` on, at most `max_bytes` or a single one.

        Args:
            position: in `[first, next)`.
            max_bytes: the most bytes.
            view: the format, and which messages.
            bound: where to end, above `position`; None: nowhere.
        """
        shown = self._shown(view)
        offsets, ends = shown.offsets, shown.ends
        begin = bisect_left(offsets, position) if position > self.first else 0
        stop, after = len(offsets), self.next
        if bound is not None:
            if bound.end < after:
                stop, after = bisect_left(offsets, bound.end), bound.end
            if bound.before_ms is not None:
                return self._read_before(bound.before_ms, shown, range(begin, stop), after, max_bytes)
        if begin >= stop:
            return Chunk(b"", after, 0)
        base = ends[begin - 1] if begin else 0
        if ends[stop - 1] - base > max_bytes:
            cut = max(bisect_left(ends, base + max_bytes + 1), begin + 1)
            if cut < stop:
                return Chunk(shown.data[base : ends[cut - 1]], offsets[cut], cut - begin)
        return Chunk(shown.data[base : ends[stop - 1]], after, stop - begin)

    def history_message(self, view: View, offset: int) -> HistoryMessage:
        """Return the message at `offset`, shown by `view`, a v1 view. A page has no frames, so no message is too large for it."""
        shown = self._shown(view)
        at = bisect_left(self._plain.offsets, offset)
        extra = self._extras.get(offset)
        if extra is None or extra.notice is None:
            payload = payload_of(shown.piece(bisect_left(shown.offsets, offset)))
        else:
            payload = v1_payload(payload_of(self._plain.piece(at)), MessageIds(*self._key), self._key.partition, offset, extra.meta)
        return HistoryMessage(self._times[at], offset, payload)

    def marks(self, view: View, *, first: int, end: int) -> list[Mark]:
        """Return the marks of the messages in `[first, end)` that `view` shows, in any format."""
        offsets = self._plain.offsets
        indices: Iterable[int] = range(bisect_left(offsets, first), bisect_left(offsets, end))
        if view.filtered:
            said = self._senders_and_tags()
            indices = [index for index in indices if view.shows(*said[index])]
        return [Mark(self._times[index], offsets[index]) for index in indices]

    def _read_before(self, before_ms: int, shown: Rendering, indices: range, after: int, max_bytes: int) -> Chunk:
        """Return the messages of `indices` older than a time, as `read` does; `after` is the position after all of them."""
        if len(indices) > TIMES_A_READ:
            indices, after = indices[:TIMES_A_READ], shown.offsets[indices[TIMES_A_READ]]
        pieces: list[bytes] = []
        for index in indices:
            if self._times[bisect_left(self._plain.offsets, shown.offsets[index])] >= before_ms:
                continue
            piece = shown.piece(index)
            max_bytes -= len(piece)
            if pieces and max_bytes < 0:
                after = shown.offsets[index]
                break
            pieces.append(piece)
        return Chunk(b"".join(pieces), after, len(pieces))

    def _shown(self, view: View) -> Rendering:
        if view is PLAIN or view == PLAIN:
            return self._plain
        if self._other is None:
            self._other = {}
        shown = self._other.get(view)
        if shown is None:
            shown = self._filtered(view) if view.filtered else self._rendered(view.format)
            if view.filtered and sum(kept.filtered for kept in self._other) >= VIEWS_KEPT:
                oldest = next(kept for kept in self._other if kept.filtered)
                self.size -= _rendering_size(oldest, self._other.pop(oldest))
            self._other[view] = shown
            self.size += _rendering_size(view, shown)
        return shown

    def _filtered(self, view: View) -> Rendering:
        """Extract a view's messages from the full rendering in its format."""
        said = self._senders_and_tags()
        whole = self._shown(View(format=view.format))
        shown = [index for index, (sender, tag) in enumerate(said) if view.shows(sender, tag)]
        return Rendering(array("q", [whole.offsets[index] for index in shown]), [whole.piece(index) for index in shown])

    def _senders_and_tags(self) -> list[tuple[str, str | None]]:
        """Return the comparable sender and tag of each message; decoded on first use, equal ones shared."""
        if self._said is None:
            known: dict[tuple[str, str | None], tuple[str, str | None]] = {}
            self._said = []
            for message in map(_decode, map(payload_of, self._plain.pieces())):
                as_is = message.sender, message.tag
                said = known.get(as_is)
                if said is None:
                    said = known[as_is] = comparable(message.sender), None if message.tag is None else comparable(message.tag)
                self._said.append(said)
            self.size += 56 + 8 * len(self._said) + sum(72 + getsizeof(sender) + getsizeof(tag or "") for sender, tag in known.values())
        return self._said

    def _rendered(self, format: Format) -> Rendering:
        """Render all messages in a format other than the bare one."""
        ids = MessageIds(*self._key)
        pieces = []
        for index, offset in enumerate(self._plain.offsets):
            extra = self._extras.get(offset)
            if extra is not None and extra.notice is not None:
                pieces.append(
                    text_frame(extra.notice) if format is Format.V1 else skipped_event(extra.notice, ids, offset, extra.meta.epoch)
                )
                continue
            key = None if self._keys is None else self._keys[index]
            meta = RecordMeta(self._times[index], key, epoch=self._epoch(offset)) if extra is None else extra.meta
            payload = v1_payload(payload_of(self._plain.piece(index)), ids, self._key.partition, offset, meta)
            pieces.append(text_frame(payload) if format is Format.V1 else event(payload, ids, offset, meta.epoch))
        return Rendering(self._plain.offsets, pieces)

    def _epoch(self, offset: int) -> int:
        return self.epochs[0][1] if len(self.epochs) == 1 else epoch_of(offset, self.epochs)

    def _first_size(self) -> int:
        size = OBJECT_BYTES + EPOCH_BYTES * len(self.epochs) + len(self._plain.data) + NUMBERS_BYTES * self.messages
        size += TOLD_BYTES * (len(self.rejected) + len(self.shortened))
        if self._keys is not None:
            size += sum(map(_key_size, self._keys))
        for extra in self._extras.values():
            size += EXTRA_BYTES + len(extra.meta.headers) + len(extra.meta.left_out) + len(extra.notice or b"")
        return size


# Python's overhead; tests/core/test_batch_size.py measures it.
OBJECT_BYTES = 1_100  # per batch, with its entries in a log and in memory
NUMBERS_BYTES = 24  # per message: its offset, its time, its frame's end
EXTRA_BYTES = 400  # per message with headers or left-out parts: two tuples, three bytes objects, an entry of a dict
EPOCH_BYTES = 140  # per epoch: a tuple of two, its entry in a tuple, a number
TOLD_BYTES = 200  # per reject or shortened message


def _key_size(key: bytes | None) -> int:
    return 8 if key is None else 56 + len(key)


def _rendering_size(view: View, shown: Rendering) -> int:
    size = 400 + len(shown.data) + 16 * len(shown.ends)
    if view.filtered:
        size += sum(100 + len(one) for some in (view.tags, view.senders) for one in some or ())
    return size


_decode = msgspec.json.Decoder(Delivery).decode
