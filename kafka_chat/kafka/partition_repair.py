"""Has partitions read again that librdkafka reads no further."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ..chat.loss_cause import LossCause
from ..delivery.audience.starts import BEYOND_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..delivery.ports import TailListener
    from ..telemetry.metrics import Telemetry
    from .connect import SparingLogger
    from .lookup import KafkaLookup
    from .poller import Assignment

STALL_SECONDS = 10.0  # how long a partition that has more may bring nothing before it is assigned again


class PartitionRepair:
    """The partitions that broke, and those that may have stalled. For the Tail's watch, which looks at them one look at a time.

    Args:
        lookup: is asked where logs begin and end.
        listener: is told of positions that are gone.
        telemetry: likewise.
        log: for the operator.
        wanted: whether an assignment is still wanted.
        restart: has a partition read again from an offset on, by another assignment.
    """

    def __init__(
        self,
        *,
        lookup: KafkaLookup,
        listener: TailListener,
        telemetry: Telemetry,
        log: SparingLogger,
        wanted: Callable[[Assignment], bool],
        restart: Callable[[Assignment, int], None],
    ) -> None:
        self._lookup = lookup
        self._listener = listener
        self._telemetry = telemetry
        self._log = log
        self._wanted = wanted
        self._restart = restart
        self._broken: dict[Assignment, float] = {}  # dead until assigned again -> since when
        self._ends: dict[Assignment, tuple[int, int]] = {}  # -> its position at the last look for stalled ones, and its end
        self._ends_asked = trio.current_time()

    def add(self, assignment: Assignment) -> None:
        """Take note that a partition broke."""
        self._broken.setdefault(assignment, trio.current_time())

    @property
    def broken(self) -> list[Assignment]:
        """Those that broke, and are still wanted."""
        return [assignment for assignment in self._broken if self._wanted(assignment)]

    async def run(self, looked_at: Iterable[Assignment]) -> None:
        """Repair what broke, and now and then what has stalled.

        Whether topics are still the same ones has to be looked up just before.

        Args:
            looked_at: those that may have stalled.

        Raises:
            BrokerError: no broker answered.
        """
        if self._broken:
            await self._repair()
        if trio.current_time() - self._ends_asked >= STALL_SECONDS:
            self._ends_asked = trio.current_time()
            await self._restart_stalled(looked_at)

    async def _repair(self) -> None:
        """Find out why partitions broke, tell, and have them read again where they can be.

        What has no leader now is left for the next time.
        """
        keys = [assignment.key for assignment in self.broken]
        firsts = await self._lookup.first_offsets(keys)
        ends = await self._lookup.last_stable_offsets(keys)
        for assignment, since in list(self._broken.items()):
            if not self._wanted(assignment):
                del self._broken[assignment]
            elif assignment.key in firsts and assignment.key in ends:
                self._repair_one(assignment, since, firsts[assignment.key], ends[assignment.key])

    def _repair_one(self, assignment: Assignment, since: float, first: int, end: int) -> None:
        position = assignment.delivered
        if position < first:
            self._lose_position(assignment, first, LossCause.RETENTION)
        elif position <= end:
            self._read_again(assignment, position)
        elif trio.current_time() - since >= BEYOND_SECONDS:  # a new leader may be a moment behind what consumers saw
            self._lose_position(assignment, end, LossCause.TRUNCATED)

    def _lose_position(self, assignment: Assignment, first_left: int, cause: LossCause) -> None:
        key, asked = assignment.key, assignment.delivered
        self._telemetry.position_lost(topic=key.topic, partition=key.partition, asked=asked, first_left=first_left, cause=cause)
        self._listener.position_lost(key, asked, first_left, cause)
        if self._wanted(assignment):
            self._read_again(assignment, first_left)

    def _read_again(self, assignment: Assignment, start: int) -> None:
        self._broken.pop(assignment, None)
        self._restart(assignment, start)

    async def _restart_stalled(self, looked_at: Iterable[Assignment]) -> None:
        """Assign again what has brought nothing since the last look, though there was more by then."""
        for assignment, (position, end) in self._ends.items():
            if self._wanted(assignment) and assignment not in self._broken and position == assignment.delivered < end:
                self._log.log(logging.WARNING, "%s stood still at offset %d of %d; it is read anew", str(assignment.key), position, end)
                self._read_again(assignment, position)
        asked = {assignment.key: assignment for assignment in looked_at}
        ends = await self._lookup.last_stable_offsets(asked)
        self._ends = {asked[key]: (asked[key].delivered, end) for key, end in ends.items()}
