"""Shares a merge between pages that wait for the same new messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..log.merge import merge_by_time
from .query import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..log.merge import PartitionScan
    from ..records.batch import HistoryMessage

    Merged = tuple[list[HistoryMessage], Sequence[PartitionScan]]


class SharedMerge:
    """The last merge of waiting requests; equal requests at the same positions use its result.

    There is one merge at a time, and other tasks run in between.
    """

    def __init__(self) -> None:
        self._merging = trio.Lock()
        self._merged: tuple[object, Merged] | None = None  # its key and its result

    async def merge(
        self, alike: Callable[[], object | None], scans: Callable[[], Sequence[PartitionScan]], *, messages: int
    ) -> Merged | None:
        """Return the messages of some scans, and the scans after them.

        Args:
            alike: called at its turn, returns a key; readers with an equal key share the merge. None: no longer wanted.
            scans: makes the scans.
            messages: the most messages to take.
        """
        async with self._merging:
            readers = alike()
            if readers is None:
                return None
            if self._merged is None or self._merged[0] != readers:
                made = scans()
                found = await merge_by_time([scan for scan in made if not scan.at_end], messages=messages, size=PAGE_BYTES)
                self._merged = readers, (found, made)
            return self._merged[1]

    def forget(self) -> None:
        """Free the result: no request waits any more."""
        self._merged = None
