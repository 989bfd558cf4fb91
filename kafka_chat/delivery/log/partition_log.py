"""The newest messages of one partition, and pages of older ones, addressed by offset.

A `PartitionLog` belongs to one topic id, and ends with it. Only the Tail appends to its head; page reads add pages. Everything
here is a plain function: between two checkpoints nothing else runs, and that serves as the lock.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from typing import TYPE_CHECKING

from ...chat.leader_epochs import LeaderEpochs
from ...chat.partition_key import PartitionKey
from ...chat.resume_cursor import NO_EPOCH
from ..records.batch import Batch, Chunk
from ..records.formats import PLAIN, Bound, View

if TYPE_CHECKING:
    from .follower import LogCursor
    from .memory import Memory

PAGE_OFFSETS = 512  # pages begin at multiples of this, so that clients at nearby positions share them


class NotInMemory(enum.Enum):
    """Why a position can't be read from memory now."""

    AHEAD = "at or above the head: wait"
    PAGE = "before what is in memory: a page is needed"


class PartitionLog:
    """One partition of one topic id: a contiguous head, and pages.

    Args:
        key: the partition.
        start: the first offset that the Tail will append.
        memory: counts its batches.
        epoch: the leader epoch when that offset was requested.

    Attributes:
        start: the first offset that the Tail appends.
        head: the next offset that the Tail will append.
        offered: the offset up to which the fan-out has offered the head to the followers.
        followers: view -> the cursors with it; their followers maintain this.
        closed: whether it is no longer followed, and keeps nothing.
        epochs: the leader epochs of the records read from it.
        first_left: the first offset that still exists, as far as known.
        large_records: whether its records are so large that a page may end before the requested position.
    """

    __slots__ = (
        "_batches",
        "_firsts",
        "_gone",
        "_memory",
        "_pages",
        "closed",
        "epochs",
        "first_left",
        "followers",
        "head",
        "key",
        "large_records",
        "offered",
        "start",
    )  # fmt: skip

    def __init__(self, key: PartitionKey, start: int, memory: Memory, epoch: int = NO_EPOCH) -> None:
        self.key = key
        self.start = start
        self.head = start
        self.offered = start
        self.first_left = 0
        self.large_records = False
        self.closed = False
        self.epochs = LeaderEpochs(epoch)
        self.followers: dict[View, dict[LogCursor, None]] = {}
        self._memory = memory
        self._batches: list[Batch] = []  # contiguous up to the head; the first `_gone` of them are dropped
        self._firsts: list[int] = []
        self._gone = 0
        self._pages: list[Batch] = []  # sorted by `first`, none within another

    def append(self, batch: Batch) -> None:
        """Append `batch` at the head; only the Tail does.

        Offsets below the head are not kept twice. If offsets are missing in between, everything before is dropped, because
        the head must be contiguous.
        """
        if batch.next <= self.head:
            return
        if batch.first < self.head:
            batch = batch.since(self.head)
        elif batch.first > self.head:
            self._drop_head()
        self.head = batch.next
        self.epochs.note(batch.epochs)
        self._batches.append(batch)
        self._firsts.append(batch.first)
        self._memory.hold(batch, self._forget)

    @property
    def cursors(self) -> list[LogCursor]:
        """The cursors of all its followers."""
        return [cursor for cursors in self.followers.values() for cursor in cursors]

    def read(self, position: int, max_bytes: int, view: View = PLAIN, *, bound: Bound | None = None) -> Chunk | NotInMemory:
        """Return messages from `position` on: at most `max_bytes`, or a single one; or why they are not in memory.

        Args:
            position: the first offset.
            max_bytes: the most bytes.
            view: the format, and which messages.
            bound: where to end, above `position`; None: nowhere.
        """
        if position >= self.head:
            return NotInMemory.AHEAD
        index = bisect_right(self._firsts, position, self._gone) - 1
        if index < self._gone:
            page = self._page_at(position)
            return NotInMemory.PAGE if page is None else self.read_in(page, position, max_bytes, view, bound=bound)
        batch = self._batches[index]
        chunk = self.read_in(batch, position, max_bytes, view, bound=bound)
        if chunk.next < batch.next or index + 1 == len(self._batches):
            return chunk
        return self._joined(chunk, index + 1, max_bytes, view, bound)

    def batch_at(self, position: int) -> Batch | None:
        """Return the batch or page in memory that contains `position`, or None."""
        if position >= self.head:
            return None
        index = bisect_right(self._firsts, position, self._gone) - 1
        return self._page_at(position) if index < self._gone else self._batches[index]

    def read_in(self, batch: Batch, position: int, max_bytes: int, view: View, *, bound: Bound | None) -> Chunk:
        """Do what `read` does for one batch or page of this log, even if memory has dropped it."""
        chunk = batch.read(position, max_bytes, view, bound=bound)
        if view is not PLAIN:
            self._memory.recount(batch)
        return chunk

    def render(self, batch: Batch, view: View) -> None:
        """Render a batch or page of this log for `view`, and count its size; memory may drop other batches for it."""
        batch.whole(view)
        self._memory.recount(batch)

    def page_range(self, position: int) -> tuple[int, int]:
        """Return the range `[first, until)` of the page that contains `position`, below the current head."""
        line = position - position % PAGE_OFFSETS
        return (position if self.large_records else max(line, min(self.first_left, position))), min(line + PAGE_OFFSETS, self.head)

    def keep_page(self, page: Batch) -> None:
        """Keep a page in place of those that it covers; a log that has been closed meanwhile keeps nothing."""
        if self.closed:
            return
        for inside in [other for other in self._pages if page.first <= other.first and other.next <= page.next]:
            self._memory.release(inside)
            self._pages.remove(inside)
        self.epochs.note(page.epochs)
        self._pages.append(page)
        self._pages.sort(key=_first)
        self._memory.hold(page, self._forget)

    def close(self) -> None:
        """Release everything: it is no longer read."""
        self.closed = True
        self._drop_head()
        for page in self._pages:
            self._memory.release(page)
        self._pages.clear()

    def _joined(self, chunk: Chunk, index: int, max_bytes: int, view: View, bound: Bound | None) -> Chunk:
        pieces, messages, room, after = [chunk.data], chunk.messages, max_bytes - len(chunk.data), chunk.next
        for batch in self._batches[index:]:
            # Counting one may make memory drop another. Batches that are not rendered yet wait for the next read: rendering may take long.
            if batch is _GONE or not batch.has_rendered(view):
                break
            if bound is not None and (batch.next > bound.end or bound.before_ms is not None):
                break
            piece = batch.whole(view)
            room -= len(piece.data)
            if room < 0:
                break
            if view is not PLAIN:
                self._memory.recount(batch)
            pieces.append(piece.data)
            messages += piece.messages
            after = piece.next
        return Chunk(b"".join(pieces), after, messages)

    def _page_at(self, position: int) -> Batch | None:
        index = bisect_right(self._pages, position, key=_first) - 1
        if index < 0 or self._pages[index].next <= position:
            return None
        self._memory.touch(self._pages[index])
        return self._pages[index]

    def _forget(self, batch: Batch) -> None:
        """Drop a batch; called by the memory. Heads are dropped oldest first, so it is the oldest one of this head, or a page."""
        if self._gone < len(self._batches) and self._batches[self._gone] is batch:
            self._batches[self._gone] = _GONE
            self._gone += 1
            if self._gone * 2 > len(self._batches):
                del self._batches[: self._gone], self._firsts[: self._gone]
                self._gone = 0
        else:
            self._pages.remove(batch)

    def _drop_head(self) -> None:
        for batch in self._batches[self._gone :]:
            self._memory.release(batch)
        self._batches.clear()
        self._firsts.clear()
        self._gone = 0


_GONE = Batch.empty(PartitionKey("", "", 0), first=0, next=0)  # replaces dropped batches


def _first(batch: Batch) -> int:
    return batch.first
