"""Finds where the last N messages of a chat begin, in the order of history pages."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ...errors import PositionLost, TopicGone
from .log_source import LogSource
from .merge import SCAN_OFFSETS, BackwardScan, pass_by_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..records.formats import View
    from .log_source import LogPiece
    from .memory import Memory
    from .page_reads import PageReads
    from .partition_log import PartitionLog


async def last_messages(
    ends: Mapping[PartitionLog, int], messages: int, *, view: View, page_reads: PageReads, memory: Memory
) -> dict[PartitionLog, int]:
    """Return where the last `messages` messages of a chat begin in each of its logs, in the order of history pages.

    Args:
        ends: the logs and the ends to count from, at most their heads.
        messages: how many over all logs; fewer if there are not as many within `SCAN_OFFSETS` offsets.
        view: which messages count.
        page_reads: reads what is not in memory.
        memory: counts what is read.
    """
    scans = {
        log: BackwardScan(
            log.key.partition,
            _Past(log, view, page_reads, memory, before_ms=None),
            end,
            max(0, end - SCAN_OFFSETS),
            most=messages,
            scan_seconds=inf,
        )
        for log, end in ends.items()
    }
    await pass_by_time(list(scans.values()), messages=messages)
    return {log: scan.last for log, scan in scans.items()}


class _Past(LogSource):
    """The past of one log; a deleted topic counts as its end, since the Tail notifies the followers."""

    async def fetch(self, offset: int) -> LogPiece:
        """Return a piece with this offset."""
        try:
            return await super().fetch(offset)
        except TopicGone as error:
            raise PositionLost(asked=offset, first_left=offset + 1) from error
