"""Restarts partitions that librdkafka has stopped reading."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ..chat.loss_cause import LossCause
from ..chat.resume_cursor import NO_EPOCH
from ..delivery.audience.starts import BEYOND_SECONDS
from ..errors import BrokerUnreachable
from .each_leader import ask_each_leader
from .lookup import LogEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..delivery.ports import TailListener
    from ..telemetry.metrics import Telemetry
    from .connect import SparingLogger
    from .lookup import KafkaLookup
    from .poller import Assignment

STALL_SECONDS = 10.0  # how long a partition that has more records may bring none before it is assigned again


class PartitionRepair:
    """The partitions that broke, and those that may have stalled. Used by the Tail's watch, one run at a time.

    Args:
        lookup: asks the brokers where logs begin and end.
        listener: is notified of lost positions.
        telemetry: records them.
        log: gets lines for the operator.
        wanted: whether an assignment is still wanted.
        restart: reads a partition from an offset with a new assignment; takes the epoch of the record before it.
    """

    def __init__(
        self,
        *,
        lookup: KafkaLookup,
        listener: TailListener,
        telemetry: Telemetry,
        log: SparingLogger,
        wanted: Callable[[Assignment], bool],
        restart: Callable[[Assignment, LogEnd], None],
    ) -> None:
        self._lookup = lookup
        self._listener = listener
        self._telemetry = telemetry
        self._log = log
        self._wanted = wanted
        self._restart = restart
        self._broken: dict[Assignment, float] = {}  # possibly not read until assigned again -> since when
        self._beyond: dict[Assignment, int] = {}  # broken with a position beyond the end -> the end when first seen
        self._ends: dict[Assignment, tuple[int, int]] = {}  # -> its position and its end at the last check for stalled ones
        self._ends_asked = trio.current_time()

    def add(self, assignment: Assignment) -> None:
        """Note that a partition broke."""
        self._broken.setdefault(assignment, trio.current_time())

    @property
    def broken(self) -> list[Assignment]:
        """The broken partitions that are still wanted."""
        return [assignment for assignment in self._broken if self._wanted(assignment)]

    async def run(self, looked_at: Iterable[Assignment]) -> None:
        """Repair broken partitions, and periodically those that have stalled.

        The caller has just looked up whether topics are still the same.

        Args:
            looked_at: the partitions to check for a stall.

        Raises:
            BrokerError: no broker answered.
        """
        if self._broken:
            await self._repair()
        if trio.current_time() - self._ends_asked >= STALL_SECONDS:
            self._ends_asked = trio.current_time()
            await self._restart_stalled(looked_at)

    async def _repair(self) -> None:
        """Find out why partitions broke, report it, and restart them where possible.

        Partitions without a leader wait for the next run. So do those without an answer about their epoch: after an election the log
        may have other records before our position.
        """
        broken = self.broken
        keys = [assignment.key for assignment in broken]
        firsts = await ask_each_leader(self._lookup, keys, self._lookup.first_offsets)
        ends = await ask_each_leader(self._lookup, keys, self._lookup.log_ends)
        stands = await self._epoch_ends([one for one in broken if one.key in ends and one.epoch not in (NO_EPOCH, ends[one.key].epoch)])
        for assignment, since in list(self._broken.items()):
            key = assignment.key
            if not self._wanted(assignment):
                del self._broken[assignment]
                self._beyond.pop(assignment, None)
            elif key in firsts and key in ends and (assignment.epoch in (NO_EPOCH, ends[key].epoch) or assignment in stands):
                self._repair_one(assignment, since, firsts[key], ends[key], stands.get(assignment, assignment.delivered))

    async def _epoch_ends(self, assignments: Sequence[Assignment]) -> dict[Assignment, int]:
        """Return where the epoch of each assignment's last record ends, for those about which a broker answers."""
        ends: dict[Assignment, int] = {}
        for epoch in {assignment.epoch for assignment in assignments}:
            of_epoch = [assignment for assignment in assignments if assignment.epoch == epoch]
            try:
                told = await self._lookup.epoch_ends([assignment.key for assignment in of_epoch], epoch)
            except BrokerUnreachable as error:
                self._log.log(logging.WARNING, "it is not known yet whether %s has lost its end: %s", str(of_epoch[0].key), error)
                continue
            ends |= {assignment: told[assignment.key] for assignment in of_epoch if assignment.key in told}
        return ends

    def _repair_one(self, assignment: Assignment, since: float, first: int, end: LogEnd, stands: int) -> None:
        """Restart a partition.

        Args:
            assignment: the broken one.
            since: when it broke.
            first: the first offset that still exists.
            end: the end of its log.
            stands: the offset up to which the log is still the one that was read.
        """
        position = assignment.delivered
        if position < first:
            self._lose_position(assignment, LogEnd(first, end.epoch), LossCause.RETENTION)
        elif stands < position:
            self._lose_position(assignment, LogEnd(max(first, stands), end.epoch), LossCause.TRUNCATED)
        elif position <= end.offset:
            self._read_again(assignment, LogEnd(position, assignment.epoch))
        else:  # a new leader may be a moment behind what consumers saw
            seen = min(end.offset, self._beyond.get(assignment, end.offset))
            self._beyond[assignment] = seen
            if trio.current_time() - since >= BEYOND_SECONDS:
                self._lose_position(assignment, LogEnd(seen, end.epoch), LossCause.TRUNCATED)

    def _lose_position(self, assignment: Assignment, left: LogEnd, cause: LossCause) -> None:
        key, asked = assignment.key, assignment.delivered
        self._telemetry.position_lost(topic=key.topic, partition=key.partition, asked=asked, first_left=left.offset, cause=cause)
        self._listener.position_lost(key, asked, left.offset, cause, epoch=left.epoch)
        if self._wanted(assignment):
            self._read_again(assignment, left)

    def _read_again(self, assignment: Assignment, start: LogEnd) -> None:
        self._broken.pop(assignment, None)
        self._beyond.pop(assignment, None)
        self._restart(assignment, start)

    async def _restart_stalled(self, looked_at: Iterable[Assignment]) -> None:
        """Assign partitions again that had more records at the last check and have brought none since."""
        for assignment, (position, end) in self._ends.items():
            if self._wanted(assignment) and assignment not in self._broken and position == assignment.delivered < end:
                self._log.log(logging.WARNING, "%s was stuck at offset %d of %d; it is read again", str(assignment.key), position, end)
                self.add(assignment)
        asked = {assignment.key: assignment for assignment in looked_at}
        ends = await ask_each_leader(self._lookup, asked, self._lookup.last_stable_offsets)
        self._ends = {asked[key]: (asked[key].delivered, end) for key, end in ends.items()}
