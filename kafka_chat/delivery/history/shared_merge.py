"""One merge for all pages that wait for the same news."""

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
    """The last merge of requests that wait; equal requests at the same positions take it.

    One merges at a time, and others have their turn between.
    """

    def __init__(self) -> None:
        self._merging = trio.Lock()
        self._merged: tuple[object, Merged] | None = None  # of which readers, and what

    async def merge(
        self, alike: Callable[[], object | None], scans: Callable[[], Sequence[PartitionScan]], *, messages: int
    ) -> Merged | None:
        """Return the messages of some scans, and the scans after that.

        Args:
            alike: returns a key, called at its turn; readers with an equal key share the merge. None: it is no longer wanted.
            scans: makes them.
            messages: how many to take, at most.
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
        """Free what was merged: nobody waits any more."""
        self._merged = None
