"""Finds the last messages before a position: where a client begins that wants so many of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import PositionLost, TopicGone
from ..log.merge import SCAN_OFFSETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...chat.partition_key import PartitionKey
    from ..log.page_reads import PageReads
    from ..log.partition_log import PartitionLog
    from ..records.batch import Mark
    from ..records.formats import View


async def messages_before(log: PartitionLog, position: int, messages: int, *, view: View, page_reads: PageReads) -> list[Mark]:
    """Return where the last messages of a partition before a position are, oldest first.

    Args:
        log: of a partition that is followed.
        position: at most its head.
        messages: how many; fewer where there are no more, or not within `SCAN_OFFSETS` offsets.
        view: which messages.
        page_reads: reads what memory does not have.
    """
    found: list[Mark] = []
    end, floor = position, max(0, position - SCAN_OFFSETS)
    while len(found) < messages and end > floor:
        try:
            batch = await page_reads.fetch(log, end - 1)
        except (PositionLost, TopicGone):
            break
        first = max(batch.first, floor)
        found = [*log.marks_in(batch, view, first=first, end=end), *found][-messages:]
        end = first
    return found


def last_messages(by_partition: Mapping[PartitionKey, Sequence[Mark]], messages: int) -> dict[PartitionKey, list[Mark]]:
    """Return the last messages of several partitions together: of each its own last ones, as many as are among them.

    They are told apart by their times; in a partition the order is that of the offsets, whatever the times say.
    """
    left = {key: len(of_one) for key, of_one in by_partition.items()}
    for _ in range(min(messages, sum(left.values()))):
        latest = max((key for key, count in left.items() if count), key=lambda key: by_partition[key][left[key] - 1].time_ms)
        left[latest] -= 1
    return {key: list(of_one[left[key] :]) for key, of_one in by_partition.items()}
