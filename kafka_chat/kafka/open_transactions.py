"""Finds partitions that an open transaction blocks: records after its first one are not delivered until it ends.

The last stable offset of such a partition is below its high watermark. That is normal for a moment during each transaction; it
lasts long if a producer with a long `transaction.timeout.ms` has died or hangs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import trio

from .each_leader import ask_each_leader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..chat.partition_key import PartitionKey
    from .lookup import KafkaLookup
    from .poller import Assignment

HELD_SECONDS = 30.0  # how long a transaction is open before it is reported; one that sends messages lasts milliseconds
LOOKS = 3  # how often it is checked in that time


class _Stand(NamedTuple):
    """A partition's last stable offset, since when it has stood there, and whether records follow it."""

    stable: int
    since: float
    held: bool


class OpenTransactions:
    """The blocked partitions. Used by the Tail's watch, like `PartitionRepair`.

    Args:
        lookup: asks the brokers.
        wanted: whether an assignment is still wanted.
        seconds: how long one is blocked before it is reported.
    """

    def __init__(self, lookup: KafkaLookup, *, wanted: Callable[[Assignment], bool], seconds: float = HELD_SECONDS) -> None:
        self._lookup = lookup
        self._wanted = wanted
        self._seconds = seconds
        self._stands: dict[Assignment, _Stand] = {}
        self._looked = trio.current_time()

    @property
    def held(self) -> Mapping[PartitionKey, int]:
        """Partition -> the offset where it is blocked, for partitions that have been blocked for long."""
        long_since = trio.current_time() - self._seconds
        return {
            assignment.key: stand.stable
            for assignment, stand in self._stands.items()
            if stand.held and stand.since <= long_since and self._wanted(assignment)
        }

    async def run(self, looked_at: Iterable[Assignment]) -> None:
        """Check the partitions' offsets, if that is due.

        Args:
            looked_at: the partitions to check this time.

        Raises:
            BrokerError: no broker answered.
        """
        now = trio.current_time()
        if now - self._looked < self._seconds / LOOKS:
            return
        self._looked = now
        asked = {assignment.key: assignment for assignment in looked_at}
        if not asked:
            return
        # The last stable offsets first: a record that comes in between may look blocked now, but not at the next check.
        stables = await ask_each_leader(self._lookup, asked, self._lookup.last_stable_offsets)
        still = [key for key, stable in stables.items() if (stand := self._stands.get(asked[key])) is not None and stand.stable == stable]
        ends = await ask_each_leader(self._lookup, still, self._lookup.high_watermarks)
        self._stands = {assignment: stand for assignment, stand in self._stands.items() if self._wanted(assignment)}
        for key, stable in stables.items():
            before = self._stands.get(asked[key])
            if before is None or before.stable != stable:
                self._stands[asked[key]] = _Stand(stable, now, held=False)
            elif ends.get(key, stable) > stable:
                self._stands[asked[key]] = _Stand(stable, before.since if before.held else now, held=True)
            else:
                self._stands[asked[key]] = _Stand(stable, now, held=False)
