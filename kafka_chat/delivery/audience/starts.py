"""Gives each follower its cursors at the offsets where it wants to begin.

An offset comes from memory, from a broker, or from reading a chat's past. Until it is known, the follower has no cursor in
that partition, and receives nothing from it.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...changes import Changes
from ...chat.loss_cause import LossCause
from ...chat.resume_cursor import NO_EPOCH
from ..log.last_messages import last_messages
from .offset_queries import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, STILL_THERE, end_of_epoch
from .pending import Pending, Reading
from .wanted_start import AtOffsets, Earliest, Latest, Resumed, Rewind, Since

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ...chat.partition_key import PartitionKey
    from ..log.follower import Follower
    from ..log.memory import Memory
    from ..log.partition_log import PartitionLog
    from .offset_queries import OffsetQueries
    from .wanted_start import Start, Unresumed

LOST_SECONDS = 1.0  # how often to check whether a log with pending questions has been lost
BEYOND_SECONDS = 5.0  # how long a position may be beyond the end, or our log ahead of a broker, before that counts as a loss
LOOK_SECONDS = 0.5  # the longest interval between two questions meanwhile; …
FIRST_LOOK_SECONDS = 0.01  # … and the first interval, when only the Tail may be behind
READ_SECONDS = 2.0  # how long `hello` waits for the reads that find a client's start


class Starts:
    """Gives followers their cursors: at once, or when their start offsets are known.

    Args:
        offsets: asks the brokers.
        memory: counts what is read.
        wanted: whether a follower still follows a log that is not closed.
    """

    def __init__(self, offsets: OffsetQueries, memory: Memory, wanted: Callable[[Follower, PartitionLog], bool]) -> None:
        self._offsets = offsets
        self._memory = memory
        self._wanted = wanted
        self._pending: dict[Follower, Pending] = {}
        self._to_read: deque[tuple[Follower, Reading]] = deque()
        self._more = Changes()

    async def run(self) -> None:
        """Run the reads and waits, until cancelled."""
        async with trio.open_nursery() as readings:
            while True:
                version = self._more.version
                while self._to_read:
                    readings.start_soon(self._run_reading, *self._to_read.popleft())
                await self._more.wait_beyond(version)

    def begin(self, follower: Follower, logs: Mapping[PartitionLog, int], start: Start) -> None:
        """Give `follower` its cursors in logs of one topic, now or once the offsets are known.

        Args:
            follower: the follower.
            logs: each with its head, as of now or of when the follower joined.
            start: where it wants to begin.
        """
        rewound: dict[PartitionLog, int] = {}
        for log, head in logs.items():
            own = self._resume(follower, log, start) if isinstance(start, Resumed) else start
            if isinstance(own, Rewind):
                rewound[log] = head
                rewind = partial(self._rewind, follower, own)
            elif own is not None:
                self._begin_in(follower, log, head, own)
        if rewound:
            self._read(follower, rewound, rewind)

    def resolve(self, follower: Follower, key: PartitionKey) -> None:
        """Withdraw the question and the reads of `follower` in a partition: its start is fixed, or no longer wanted."""
        pending = self._pending.get(follower)
        if pending is None:
            return
        question = pending.questions.pop(key, None)
        if question is not None:
            question.withdraw()
        pending.beyond.discard(key)
        for reading in pending.readings:
            for log in [log for log in reading.logs if log.key == key]:
                del reading.logs[log]
            if not reading.logs:
                reading.scope.cancel()
        pending.readings = [reading for reading in pending.readings if reading.logs]
        if not pending.questions and not pending.readings:
            del self._pending[follower]
        pending.changes.note()

    def pending(self, follower: Follower) -> Pending | None:
        """Return the pending questions and reads of `follower`; None if there are none."""
        return self._pending.get(follower)

    def is_placed(self, follower: Follower, log: PartitionLog) -> bool:
        """Whether the start of `follower` in a log is fixed, or being found."""
        if log.key in follower.cursors:
            return True
        pending = self._pending.get(follower)
        if pending is None:
            return False
        asked = log.key in pending.questions and pending.questions[log.key].open
        return asked or any(log in reading.logs for reading in pending.readings)

    async def wait_answers(self, follower: Follower) -> None:
        """Wait until brokers have answered all questions of `follower`."""
        while (pending := self._pending.get(follower)) is not None and pending.questions:
            await pending.changes.wait_beyond(pending.changes.version)

    async def wait_readings(self, follower: Follower) -> None:
        """Wait at most `READ_SECONDS` for the reads of `follower` and the questions after them.

        If a broker has answered that a partition ends before the offset that is due, or before our log's head, wait until that is resolved.
        """
        while (pending := self._pending.get(follower)) is not None:
            until = pending.since + (BEYOND_SECONDS + 2 * LOOK_SECONDS if pending.beyond else READ_SECONDS)
            with trio.move_on_at(until) as waiting:
                await pending.changes.wait_beyond(pending.changes.version)
            if waiting.cancelled_caught:
                return

    def forget(self, key: PartitionKey) -> None:
        """Withdraw all questions about a partition; the caller resolves waiting followers, or starts them again."""
        self._offsets.forget(key)

    # Inside

    def _begin_in(self, follower: Follower, log: PartitionLog, head: int, start: Latest | Earliest | Since | AtOffsets) -> None:
        match start:
            case Latest():
                follower.follow(log, head)
            case Earliest():
                self._ask(follower, log, EARLIEST_TIMESTAMP, partial(self._begin_at_told, follower, log, head))
            case Since(time_ms):
                self._ask(follower, log, time_ms, partial(self._begin_at_told, follower, log, head))
            case AtOffsets():
                if (recreated := start.recreated(log.key)) is None:
                    follower.follow(log, start.offset(log.key))
                else:
                    self._ask(follower, log, STILL_THERE, partial(self._begin_after, follower, log, start, recreated))

    def _begin_after(self, follower: Follower, log: PartitionLog, start: AtOffsets | Resumed, recreated: int, _: int) -> None:
        """Begin in a topic that has replaced the one in which an offset was due: brokers say that it is not the other way round.

        Another instance may know a topic before our Tail does. Then the question stays open until the Tail finds it, and `follower` begins
        there.
        """
        if self._may_begin(follower, log):
            follower.on_gap(log.key, recreated, 0, LossCause.RECREATED)
            self._resume_at(follower, log, start.offset(log.key) or 0)

    def _resume(self, follower: Follower, log: PartitionLog, start: Resumed) -> Unresumed | None:
        """Begin where a cursor says; return how to begin if it says nothing."""
        recreated = start.recreated(log.key)
        if recreated is not None:
            self._ask(follower, log, STILL_THERE, partial(self._begin_after, follower, log, start, recreated))
            return None
        due, epoch, known = start.offset(log.key), start.epoch(log.key), log.epochs.latest
        if due is None:
            return start.unresumed(log.key)
        if epoch in (NO_EPOCH, known):
            self._resume_at(follower, log, due, epoch)
        elif epoch < known or known == NO_EPOCH:  # an election since: do the records that the client has received still exist?
            self._ask(follower, log, end_of_epoch(epoch), partial(self._resume_before, follower, log, due))
        else:  # from an instance that noticed an election first: up to which offset does this log match the partition?
            self._ask(follower, log, end_of_epoch(known), partial(self._resume_within, follower, log, due, epoch))
        return None

    def _resume_before(self, follower: Follower, log: PartitionLog, due: int, end: int) -> None:
        """Continue at `due`, or at the end of the epoch of the client's last record, after which the records are different now."""
        if self._may_begin(follower, log):
            if end < due:
                follower.on_gap(log.key, due, end, LossCause.TRUNCATED)
            self._resume_at(follower, log, min(due, end))

    def _resume_within(self, follower: Follower, log: PartitionLog, due: int, epoch: int, kept: int) -> None:
        """Continue at `due` if the records before it are kept; otherwise once the Tail has read as far as the client."""
        if not self._may_begin(follower, log):
            return
        if due <= min(kept, log.head):
            self._resume_at(follower, log, due)
            return
        self._read(follower, {log: due}, partial(self._resume_later, follower, epoch))
        if kept < log.head:  # an unclean election: the log is about to start over
            self._note_beyond(follower, log)

    def _resume_at(self, follower: Follower, log: PartitionLog, due: int, epoch: int = NO_EPOCH) -> None:
        """Continue at `due`.

        Args:
            follower: the follower.
            log: the log.
            due: its next offset.
            epoch: the epoch of the record before it; `NO_EPOCH` if unknown, or if that record certainly exists.
        """
        if due > log.head:  # a broker or the Tail may be a moment behind, or the log may have lost its end
            self._read(follower, {log: due}, partial(self._find_end, follower, log.head, epoch))
        elif due == log.head or log.batch_at(due) is not None:
            follower.follow(log, due)
        else:  # is it still there?
            self._ask(follower, log, EARLIEST_TIMESTAMP, partial(self._begin_at_due, follower, log, due))

    def _ask(self, follower: Follower, log: PartitionLog, time_ms: int, begin: Callable[[int], None]) -> None:
        """Ask for the offset of a time, and call `begin` with it."""
        self._pending.setdefault(follower, Pending()).questions[log.key] = self._offsets.put(log.key, time_ms, begin)

    def _begin_at_told(self, follower: Follower, log: PartitionLog, head: int, offset: int) -> None:
        """Begin at an offset from a broker, but not above the head as of the question."""
        if self._may_begin(follower, log):
            follower.follow(log, min(offset, head))

    def _begin_at_due(self, follower: Follower, log: PartitionLog, due: int, first_left: int) -> None:
        """Begin at the offset that is due, or at the first offset that still exists, if that is higher."""
        if self._may_begin(follower, log):
            if first_left > due:
                follower.on_gap(log.key, due, first_left, LossCause.RETENTION)
            follower.follow(log, max(first_left, due))

    def _may_begin(self, follower: Follower, log: PartitionLog) -> bool:
        """Note that the start of `follower` is known; return whether it is still wanted: it may have left, or rejoined."""
        self.resolve(follower, log.key)
        return log.key not in follower.cursors and self._wanted(follower, log)

    def _read(self, follower: Follower, logs: Mapping[PartitionLog, int], find: Callable[[Reading], Awaitable[None]]) -> None:
        """Start a task that finds the start of `follower` in logs."""
        pending = self._pending.setdefault(follower, Pending())
        reading = Reading(find)
        reading.logs.update(logs)
        pending.readings.append(reading)
        self._to_read.append((follower, reading))
        self._more.note()

    async def _run_reading(self, follower: Follower, reading: Reading) -> None:
        with reading.scope:
            if reading.logs:  # otherwise no longer wanted when this task began
                await reading.find(reading)

    async def _rewind(self, follower: Follower, start: Rewind, reading: Reading) -> None:
        """Begin `start.messages` messages before the heads, counted over all logs together."""
        ends = dict(reading.logs)
        begins = await last_messages(ends, start.messages, view=follower.view, page_reads=follower.page_reads, memory=self._memory)
        if start.not_after_ms is not None:
            told: dict[PartitionKey, int] = {}
            while missing := [log.key for log in reading.logs if log.key not in told]:
                async with self._offsets.ask(missing, start.not_after_ms) as answers:
                    with trio.move_on_after(LOST_SECONDS):  # the question about a log that is lost meanwhile is never answered
                        await answers.all()
                    told |= answers.told
            begins = {log: min(begin, told[log.key]) for log, begin in begins.items() if log.key in told}
        for log, begin in begins.items():
            if log in reading.logs and self._may_begin(follower, log):
                follower.follow(log, begin)

    async def _find_end(self, follower: Follower, head: int, epoch: int, reading: Reading) -> None:
        """Begin at the due offset once the log reaches it, or at the first end seen, if the log stays shorter.

        A broker may be a moment behind, so records that appear meanwhile may be old ones. They are delivered nevertheless if the log
        has lost its end.
        """
        ((log, due),) = reading.logs.items()
        give_up_at, end = trio.current_time() + BEYOND_SECONDS, due
        while end == due or trio.current_time() < give_up_at:
            async with self._offsets.ask([log.key], LATEST_TIMESTAMP) as answers:
                told = (await answers.all())[log.key]
            if told >= due or log not in reading.logs:
                end = due
                break
            end = min(end, told)
            self._note_beyond(follower, log)
            await trio.sleep(LOOK_SECONDS)
        if end == due and epoch != NO_EPOCH:
            await self._resume_later(follower, epoch, reading)
        elif log in reading.logs and self._may_begin(follower, log):
            if end < due:
                end = min(end, head)
                follower.on_gap(log.key, due, end, LossCause.TRUNCATED)
            follower.follow(log, end)

    async def _resume_later(self, follower: Follower, epoch: int, reading: Reading) -> None:
        """Resume once the Tail has reached a cursor in offset and epoch; or after a while, with what is known then.

        The Tail's next records may be of a later epoch, and different from those that the client has received. If the log starts over,
        this ends, and `follower` begins again in the new log.
        """
        ((log, due),) = reading.logs.items()
        give_up_at, pause = trio.current_time() + BEYOND_SECONDS, FIRST_LOOK_SECONDS
        while (log.head < due or log.epochs.latest < epoch) and trio.current_time() < give_up_at:
            await trio.sleep(pause)
            pause = min(2 * pause, LOOK_SECONDS)
        if log not in reading.logs or not self._may_begin(follower, log):
            return
        if epoch == log.epochs.latest and due <= log.head:
            self._resume_at(follower, log, due)
        else:
            self._ask(follower, log, end_of_epoch(epoch), partial(self._resume_before, follower, log, due))

    def _note_beyond(self, follower: Follower, log: PartitionLog) -> None:
        """Make waits for `follower` last until it is known whether the log has lost its end."""
        pending = self._pending[follower]
        pending.beyond.add(log.key)
        pending.changes.note()
