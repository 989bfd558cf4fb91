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

# A filter may let hardly anything pass. A page ends after this much, and the next one continues there.
SCAN_OFFSETS = 50_000  # offsets of a partition
SCAN_SECONDS = 2.0


class Piece(Protocol):
    """Messages of a range of one partition."""

    @property
    def first(self) -> int:
        """Where the range begins."""

    @property
    def next(self) -> int:
        """Where it ends."""

    def marks(self, *, first: int, end: int) -> Sequence[Mark]:
        """Return marks of the messages in `[first, end)` that a page shows."""

    def message(self, offset: int) -> HistoryMessage:
        """Return one of them."""


class Source(Protocol):
    """Where one partition's messages are read."""

    async def fetch(self, offset: int) -> Piece:
        """Return a piece that has this offset; raise `PositionLost` if it is gone."""


class PartitionScan(ABC):
    """One partition's part of a page: what is read but not taken yet.

    Attributes:
        partition: its number.
        lost: the offset that was due and is gone, and where it continued.
    """

    def __init__(self, partition: int, source: Source, position: int, bound: int, *, most: int, scan_seconds: float = SCAN_SECONDS) -> None:
        """Begin.

        Args:
            partition: its number.
            source: where it is read.
            position: where it begins.
            bound: where it ends.
            most: how many messages the page takes.
            scan_seconds: how long it looks for a message, at most, after the first piece.
        """
        self.partition = partition
        self.lost: tuple[int, int] | None = None
        self._source = source
        self._scanned = position
        self._bound = bound
        # One more than the page takes, so a page never takes all that is kept. They are from one piece, because
        # the next one is read when all are taken; messages are cut from it one by one.
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
        """Whether it has nothing more."""
        return not self._found and self._scanned == self._bound

    @property
    @abstractmethod
    def position(self) -> int:
        """Where the next page continues in the same direction."""

    @property
    @abstractmethod
    def rank(self) -> tuple[int, int]:
        """The sort key of its next message among scans: the lowest is taken first."""

    def take(self) -> HistoryMessage:
        """Return its next message, which is known."""
        assert self._piece is not None  # it is where the message was found
        return self._piece.message(self._next_mark().offset)

    def skip(self) -> None:
        """Pass over its next message, which is known."""
        self._next_mark()

    @abstractmethod
    def _next_mark(self) -> Mark:
        """Remove the next message from those that are known."""

    @abstractmethod
    async def scan(self) -> int:
        """Read one piece; return how many offsets that were."""

    async def fill(self) -> None:
        """Read on until its next message is known, it has nothing more, or it has looked far enough."""
        while not self._found and self._scanned != self._bound:
            if self._left <= 0 or (self._left < SCAN_OFFSETS and trio.current_time() >= self._scan_until):
                return
            self._left -= await self.scan()


class ForwardScan(PartitionScan):
    """From older messages to newer ones, below its bound."""

    @property
    def position(self) -> int:
        """Where the next page continues: all offsets before it are done."""
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
            await self._turn.share()  # all scans that waited for the same piece continue in this round
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
        last: the offset of the message taken or skipped last; at first, where it began.
    """

    def __init__(self, partition: int, source: Source, position: int, bound: int, *, most: int, scan_seconds: float = SCAN_SECONDS) -> None:
        """See `PartitionScan`."""
        super().__init__(partition, source, position, bound, most=most, scan_seconds=scan_seconds)
        self.last = position

    @property
    def position(self) -> int:
        """Where the next page continues: all offsets at and after it are done."""
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
        except PositionLost:  # deleted since the bound was asked for
            self._bound = end
            return 0
        begin = max(piece.first, self._bound)
        self._found.extend(piece.marks(first=begin, end=end))
        self._scanned = begin
        return end - begin


async def merge_by_time(scans: Sequence[PartitionScan], *, messages: int, size: int) -> list[HistoryMessage]:
    """Take messages from scans of one direction, in its order.

    It ends where a next message is unknown, so a page never has a message that another one should precede, as long as
    times increase in each partition.

    Args:
        scans: a partition each.
        messages: how many, at most.
        size: how many bytes; the message that reaches it is the last.
    """
    found: list[HistoryMessage] = []

    def take(scan: PartitionScan) -> int:
        found.append(scan.take())
        return len(found[-1].payload)

    await _walk(scans, messages=messages, size=size, take=take)
    return found


async def pass_by_time(scans: Sequence[PartitionScan], *, messages: int) -> None:
    """Pass over messages of scans of one direction as `merge_by_time` takes them, without making them.

    Args:
        scans: a partition each.
        messages: how many, at most.
    """
    await _walk(scans, messages=messages, size=1, take=_pass)


def _pass(scan: PartitionScan) -> int:
    scan.skip()
    return 0


async def _walk(scans: Sequence[PartitionScan], *, messages: int, size: int, take: Callable[[PartitionScan], int]) -> None:
    """Have `take` remove the next message of one scan after the other; it returns how many bytes of `size` that takes."""
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
    """Fill them side by side; an error that is alone comes out as itself."""
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
