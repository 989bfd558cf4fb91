"""The partitions of a chat, woven into one page: by time, and within a partition by offset."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Protocol

import trio

from ...errors import PositionLost
from ...nursery import open_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..records.batch import Line

# A filter may let hardly anything pass. A page ends where it has looked far enough, and the next one goes on from there.
LOOKED_AT = 50_000  # offsets of a partition
LOOKING_SECONDS = 2.0


class Piece(Protocol):
    """Messages of a range of one partition."""

    @property
    def first(self) -> int:
        """Where the range begins."""

    @property
    def next(self) -> int:
        """Where it ends."""

    def lines(self, *, first: int, end: int) -> Sequence[Line]:
        """Return those of `[first, end)` that a page shows."""


class Source(Protocol):
    """Where one partition's messages are read."""

    async def fetch(self, offset: int) -> Piece:
        """Return a piece that has this offset; raise `PositionLost` where it is gone."""


class Strand(ABC):
    """One partition's part of a page: what is read of it and not taken yet.

    Attributes:
        partition: its number.
        lost: the offset that was due and is gone, and where it went on instead.
    """

    def __init__(self, partition: int, source: Source, position: int, bound: int, *, most: int) -> None:
        """Begin.

        Args:
            partition: its number.
            source: where it is read.
            position: where it begins.
            bound: where it ends.
            most: how many messages the page takes.
        """
        self.partition = partition
        self.lost: tuple[int, int] | None = None
        self._source = source
        self._scanned = position
        self._bound = bound
        # One more than the page takes: what is not kept is not missed, for all that is kept is never taken.
        self._lines: deque[Line] = deque(maxlen=most + 1)
        self._left = LOOKED_AT
        self._look_until = trio.current_time() + LOOKING_SECONDS

    @property
    def holds(self) -> bool:
        """Whether its next message is known."""
        return bool(self._lines)

    @property
    def at_end(self) -> bool:
        """Whether it has nothing more."""
        return not self._lines and self._scanned == self._bound

    @property
    @abstractmethod
    def position(self) -> int:
        """Where the next page goes on, in the same direction."""

    @property
    @abstractmethod
    def rank(self) -> tuple[int, int]:
        """By what its next message is told apart from those of other strands: the lowest is taken first."""

    @abstractmethod
    def take(self) -> Line:
        """Return its next message, which is known."""

    @abstractmethod
    async def look(self) -> int:
        """Read one piece; return how many offsets that were."""

    async def fill(self) -> None:
        """Read on until its next message is known, it has nothing more, or it has looked far enough."""
        while not self._lines and self._scanned != self._bound:
            if self._left <= 0 or (self._left < LOOKED_AT and trio.current_time() >= self._look_until):
                return
            self._left -= await self.look()


class Forward(Strand):
    """From older messages to newer ones, below its bound."""

    @property
    def position(self) -> int:
        """See `Strand`: all offsets before it are had."""
        return self._lines[0].offset if self._lines else self._scanned

    @property
    def rank(self) -> tuple[int, int]:
        """See `Strand`."""
        return self._lines[0].time_ms, self.partition

    def take(self) -> Line:
        """See `Strand`."""
        return self._lines.popleft()

    async def look(self) -> int:
        """See `Strand`."""
        begin = self._scanned
        try:
            piece = await self._source.fetch(begin)
        except PositionLost as lost:
            self._scanned = min(lost.first_left, self._bound)
            self.lost = (self.lost or (begin, 0))[0], self._scanned
            return 0
        end = min(piece.next, self._bound)
        self._lines.extend(piece.lines(first=begin, end=end)[: self._lines.maxlen])
        self._scanned = end
        return end - begin


class Backward(Strand):
    """From newer messages to older ones, at and above its bound."""

    @property
    def position(self) -> int:
        """See `Strand`: all offsets at and after it are had."""
        return self._lines[-1].offset + 1 if self._lines else self._scanned

    @property
    def rank(self) -> tuple[int, int]:
        """See `Strand`."""
        return -self._lines[-1].time_ms, -self.partition

    def take(self) -> Line:
        """See `Strand`."""
        return self._lines.pop()

    async def look(self) -> int:
        """See `Strand`."""
        end = self._scanned
        try:
            piece = await self._source.fetch(end - 1)
        except PositionLost:  # deleted since the bound was asked for
            self._bound = end
            return 0
        begin = max(piece.first, self._bound)
        self._lines.extend(piece.lines(first=begin, end=end))
        self._scanned = begin
        return end - begin


async def weave(strands: Sequence[Strand], *, messages: int, size: int) -> list[Line]:
    """Take messages from strands of one direction, in its order.

    It ends where the next one is not known: so a page never has a message before which another one would have to come, as far as
    times go up in each partition.

    Args:
        strands: a partition each.
        messages: how many, at most.
        size: how many bytes; the message that reaches it is the last.
    """
    await _fill_all(strands)
    found: list[Line] = []
    if not all(strand.holds or strand.at_end for strand in strands):
        return found
    ranks = [(strand.rank, index) for index, strand in enumerate(strands) if strand.holds]
    heapq.heapify(ranks)
    while ranks and len(found) < messages and size > 0:
        strand = strands[ranks[0][1]]
        found.append(strand.take())
        size -= len(found[-1].payload)
        await strand.fill()
        if strand.holds:
            heapq.heapreplace(ranks, (strand.rank, ranks[0][1]))
        elif strand.at_end:
            heapq.heappop(ranks)
        else:
            break
    return found


async def _fill_all(strands: Sequence[Strand]) -> None:
    """Fill them side by side; an error that is alone comes out as itself."""
    left = len(strands)
    filled = trio.Event()

    async def fill(strand: Strand) -> None:
        nonlocal left
        await strand.fill()
        left -= 1
        if not left:
            filled.set()

    async with open_tasks() as nursery:
        for strand in strands:
            nursery.start_soon(fill, strand)
        if strands:
            await filled.wait()
