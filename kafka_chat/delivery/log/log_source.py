"""Reads one log, piece by piece, for the scans of a merge."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..records.batch import Batch, HistoryMessage, Mark
    from ..records.formats import View
    from .memory import Memory
    from .page_reads import PageReads
    from .partition_log import PartitionLog


class LogSource:
    """One partition, as a source for scans.

    Args:
        log: the partition's log.
        view: the format, and which messages.
        page_reads: reads what is not in memory.
        memory: counts what is read.
        before_ms: show only messages older than this, Unix milliseconds; None: all.
    """

    def __init__(self, log: PartitionLog, view: View, page_reads: PageReads, memory: Memory, *, before_ms: int | None) -> None:
        self._log = log
        self._view = view
        self._before_ms = before_ms
        self._page_reads = page_reads
        self._memory = memory

    async def fetch(self, offset: int) -> LogPiece:
        """Return a piece that has this offset."""
        return LogPiece(await self._page_reads.fetch(self._log, offset), self._view, self._memory, before_ms=self._before_ms)


class LogPiece:
    """A batch, as a piece for scans."""

    def __init__(self, batch: Batch, view: View, memory: Memory, *, before_ms: int | None) -> None:
        self.first = batch.first
        self.next = batch.next
        self._batch = batch
        self._view = view
        self._memory = memory
        self._before_ms = before_ms

    def marks(self, *, first: int, end: int) -> Sequence[Mark]:
        """Return what the batch has, in this view."""
        found = self._batch.marks(self._view, first=first, end=end)
        self._memory.recount(self._batch)  # its senders and tags may be decoded now
        return found if self._before_ms is None else [mark for mark in found if mark.time_ms < self._before_ms]

    def message(self, offset: int) -> HistoryMessage:
        """Return what the batch has, in this view."""
        found = self._batch.history_message(self._view, offset)
        self._memory.recount(self._batch)  # it may be rendered in another format now
        return found
