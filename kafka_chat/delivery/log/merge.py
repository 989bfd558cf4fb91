"""Merges the partitions of a chat into one page: by time, and within a partition by offset."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Protocol

import trio

from ...errors import PositionLost
from ...loop_sharing import TurnInLine
from ...nursery import open_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..records.batch import HistoryMessage, Mark

# A filter may match hardly anything. A page ends after scanning this much, and the next one continues there.
SCAN_OFFSETS = 50_000  # offsets of a partition
SCAN_SECONDS = 2.0


class Piece(Protocol):
    """Messages of a range of one partition."""

    @property
    def first(self) -> int:
        """The first offset of the range."""

    @property
    def next(self) -> int:
        """The offset after the range."""

    def marks(self, *, first: int, end: int) -> Sequence[Mark]:
        """Return the marks of the shown messages in `[first, end)`."""

    def message(self, offset: int) -> HistoryMessage:
        """Return the message at an offset of a mark."""


class Source(Protocol):
    """Provides one partition's messages."""

    async def fetch(self, offset: int) -> Piece:
        """Return a piece with this offset; raise `PositionLost` if it is gone."""


class PartitionScan(ABC):
    """The scan of one partition for a page: the messages that are read but not taken yet.

    Attributes:
        partition: its number.
        lost: the due offset that is gone, and the offset where it continued.
    """

    def __init__(self, partition: int, source: Source, position: int, bound: int, *, most: int, scan_seconds: float = SCAN_SECONDS) -> None:
        """Begin a scan.

        Args:
            partition: its number.
            source: provides the messages.
            position: where it begins.
            bound: where it ends.
            most: the most messages of the page.
            scan_seconds: how long, at most, to look for a message after the first piece.
        """
        self.partition = partition
        self.lost: tuple[int, int] | None = None
        self._source = source
        self._scanned = position
        self._bound = bound
        # One more than the page takes, so that a page never takes all of them. They are from one piece, because
        # the next piece is read when all are taken; messages are extracted from it one by one.
        self._found: deque[Mark] = deque(maxlen=most + 1)
        self._piece: Piece | None = None
        self._turn = TurnInLine()
        self._left = SCAN_OFFSETS
        self._scan_until = trio.current_time() + scan_seconds

    @property
    def holds(self) -> bool:
        """Whether its next message is known."""
        return bool(self._found)

    @property
    def at_end(self) -> bool:
        """Whether it has no more messages."""
        return not self._found and self._scanned == self._bound

    @property
    @abstractmethod
    def position(self) -> int:
        """The position where the next page in the same direction continues."""

    @property
    @abstractmethod
    def rank(self) -> tuple[int, int]:
        """The sort key of its next message among scans; the lowest is taken first."""

    def take(self) -> HistoryMessage:
        """Return its next message, which is known."""
        assert self._piece is not None  # the message is in it
        return self._piece.message(self._next_mark().offset)

    def skip(self) -> None:
        """Skip its next message, which is known."""
        self._next_mark()

    @abstractmethod
    def _next_mark(self) -> Mark:
        """Remove the mark of the next message, and return it."""

    @abstractmethod
    async def scan(self) -> int:
        """Read one piece; return how many offsets it covered."""

    async def fill(self) -> None:
        """Read on until its next message is known, there are no more, or the limit of a page is reached."""
        while not self._found and self._scanned != self._bound:
            if self._left <= 0 or (self._left < SCAN_OFFSETS and trio.current_time() >= self._scan_until):
                return
            self._left -= await self.scan()


class ForwardScan(PartitionScan):
    """From older messages to newer ones, below its bound."""

    @property
    def position(self) -> int:
        """The position where the next page continues: all offsets before it are done."""
        return self._found[0].offset if self._found else self._scanned

    @property
    def rank(self) -> tuple[int, int]:
        """See `PartitionScan`."""
        return self._found[0].time_ms, self.partition

    def _next_mark(self) -> Mark:
        return self._found.popleft()

    async def scan(self) -> int:
        """See `PartitionScan`."""
        begin = self._scanned
        try:
            self._piece = None
            piece = self._piece = await self._source.fetch(begin)
            await self._turn.share()  # all scans that waited for the same piece continue in this iteration
        except PositionLost as lost:
            self._scanned = min(lost.first_left, self._bound)
            self.lost = (self.lost or (begin, 0))[0], self._scanned
            return 0
        end = min(piece.next, self._bound)
        self._found.extend(piece.marks(first=begin, end=end)[: self._found.maxlen])
        self._scanned = end
        return end - begin


class BackwardScan(PartitionScan):
    """From newer messages to older ones, at and above its bound.

    Attributes:
        last: the offset of the last message taken or skipped; at first, the start.
    """

    def __init__(self, partition: int, source: Source, position: int, bound: int, *, most: int, scan_seconds: float = SCAN_SECONDS) -> None:
        """See `PartitionScan`."""
        super().__init__(partition, source, position, bound, most=most, scan_seconds=scan_seconds)
        self.last = position

    @property
    def position(self) -> int:
        """The position where the next page continues: all offsets at and after it are done."""
        return self._found[-1].offset + 1 if self._found else self._scanned

    @property
    def rank(self) -> tuple[int, int]:
        """See `PartitionScan`."""
        return -self._found[-1].time_ms, -self.partition

    def _next_mark(self) -> Mark:
        mark = self._found.pop()
        self.last = mark.offset
        return mark

    async def scan(self) -> int:
        """See `PartitionScan`."""
        end = self._scanned
        try:
            self._piece = None
            piece = self._piece = await self._source.fetch(end - 1)
            await self._turn.share()
        except PositionLost:  # deleted since the bound was requested
            self._bound = end
            return 0
        begin = max(piece.first, self._bound)
        self._found.extend(piece.marks(first=begin, end=end))
        self._scanned = begin
        return end - begin


async def merge_by_time(scans: Sequence[PartitionScan], *, messages: int, size: int) -> list[HistoryMessage]:
    """Take messages from scans of one direction, in the order of that direction.

    It ends where the next message of a scan is unknown, so a page never has a message that an unknown one should precede,
    as long as timestamps increase in each partition.

    Args:
        scans: one per partition.
        messages: the most messages.
        size: the most bytes; the message that reaches it is the last.
    """
    found: list[HistoryMessage] = []

    def take(scan: PartitionScan) -> int:
        found.append(scan.take())
        return len(found[-1].payload)

    await _walk(scans, messages=messages, size=size, take=take)
    return found


async def pass_by_time(scans: Sequence[PartitionScan], *, messages: int) -> None:
    """Skip messages of scans of one direction in the order of `merge_by_time`, without extracting them.

    Args:
        scans: one per partition.
        messages: the most messages.
    """
    await _walk(scans, messages=messages, size=1, take=_pass)


def _pass(scan: PartitionScan) -> int:
    scan.skip()
    return 0


async def _walk(scans: Sequence[PartitionScan], *, messages: int, size: int, take: Callable[[PartitionScan], int]) -> None:
    """Call `take` with the scan of each next message; it removes the message, and returns its part of `size`."""
    await _fill_all(scans)
    if not all(scan.holds or scan.at_end for scan in scans):
        return
    turn = TurnInLine()
    await turn.begin()
    ranks = [(scan.rank, index) for index, scan in enumerate(scans) if scan.holds]
    heapq.heapify(ranks)
    while ranks and messages > 0 and size > 0:
        scan = scans[ranks[0][1]]
        size -= take(scan)
        messages -= 1
        await scan.fill()
        if scan.holds:
            heapq.heapreplace(ranks, (scan.rank, ranks[0][1]))
        elif scan.at_end:
            heapq.heappop(ranks)
        else:
            break
        await turn.share()


async def _fill_all(scans: Sequence[PartitionScan]) -> None:
    """Fill them concurrently; a single error is raised without its group."""
    left = len(scans)
    filled = trio.Event()

    async def fill(scan: PartitionScan) -> None:
        nonlocal left
        await scan.fill()
        left -= 1
        if not left:
            filled.set()

    async with open_tasks() as nursery:
        for scan in scans:
            nursery.start_soon(fill, scan)
        if scans:
            await filled.wait()
