"""Where somebody wants to begin in a topic, and which offset that is in each partition.

What it takes to know is in memory, with a broker, or in the past of a chat: then a member has no cursor in that partition until it is
known, and what is delivered meanwhile is nothing of it.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...changes import Changes
from ...chat.loss_cause import LossCause
from ...chat.partition_key import PartitionKey
from ...chat.resume_cursor import NO_EPOCH, TopicOffsets, identity_of
from ..log.last_messages import last_messages
from .offset_queries import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, end_of_epoch
from .pending import Pending, Reading

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..log.follower import Follower
    from ..log.memory import Memory
    from ..log.partition_log import PartitionLog
    from .offset_queries import OffsetQueries

LOST_SECONDS = 1.0  # after which it is looked whether a log whose offset is asked for has been lost
BEYOND_SECONDS = 5.0  # how long a position may lie beyond the end before the log is known to have lost its end
LOOK_SECONDS = 0.5  # between two questions meanwhile
READ_SECONDS = 2.0  # how long a client is not greeted for what is read to know where it begins
EARLIER_MS = 10_000  # how much before the accept a session begins that was accepted while no broker could be asked


@dataclass(frozen=True, slots=True)
class Latest:
    """At the head: what is produced from now on."""


@dataclass(frozen=True, slots=True)
class Earliest:
    """At the first record that is left."""


@dataclass(frozen=True, slots=True)
class Rewind:
    """So many messages before the head, over all partitions of the chat.

    Attributes:
        messages: how many.
        not_after_ms: and at the first record of this time at the latest, Unix, in milliseconds; None: no such bound.
    """

    messages: int
    not_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Since:
    """At the first record of a time: Unix, in milliseconds."""

    time_ms: int


@dataclass(frozen=True, slots=True)
class AtOffsets:
    """At these offsets of this very topic; partitions that are not named, and another topic, begin at 0.

    Attributes:
        topic_id: whose offsets they are; "" where there was no such topic.
        offsets: partition -> offset.
    """

    topic_id: str
    offsets: Mapping[int, int]

    def offset(self, key: PartitionKey) -> int:
        """Return the first offset to deliver of this partition."""
        return self.offsets.get(key.partition, 0) if key.topic_id == self.topic_id else 0


@dataclass(frozen=True, slots=True)
class Resumed:
    """After what a client has had.

    Attributes:
        entry: where its cursor stands in the topic.
        otherwise: how a partition begins that the cursor does not stand for.
        not_before: where the client subscribed anew since that cursor; None where it did not.
    """

    entry: TopicOffsets
    otherwise: Unresumed
    not_before: AtOffsets | None = None

    def offset(self, key: PartitionKey) -> int | None:
        """Return the next offset of this partition; None where `otherwise` says.

        A topic that was absent then, or is another one now, begins at 0, and so does a partition that was added since.
        """
        entry = self.entry
        least = 0 if self.not_before is None else self.not_before.offset(key)
        if entry.identity != identity_of(key.topic_id):
            return least
        offset = entry.next(key.partition)
        if offset is None and (not entry.whole or entry.is_unknown(key.partition)):
            return None
        return max(least, offset or 0)

    def epoch(self, key: PartitionKey) -> int:
        """Return the leader epoch of what its client has had last before `offset`; `NO_EPOCH` where that is not known."""
        offset = self.offset(key)
        if not offset or self.entry.identity != identity_of(key.topic_id) or offset != self.entry.next(key.partition):
            return NO_EPOCH
        return self.entry.epoch(key.partition)

    def recreated(self, key: PartitionKey) -> int | None:
        """Return the offset that is due of a partition whose topic is another one now; None where that is not so."""
        if self.not_before is not None or self.entry.identity in (None, identity_of(key.topic_id)):
            return None
        return self.entry.next(key.partition)


Unresumed = Latest | Earliest | Rewind | Since | AtOffsets
Start = Unresumed | Resumed


def offset_named(start: Start | None, key: PartitionKey) -> int | None:
    """Return the offset that a start itself names for a partition; None where a broker or the log has to tell it."""
    return start.offset(key) if isinstance(start, AtOffsets | Resumed) else None


def epoch_named(start: Start | None, key: PartitionKey) -> int:
    """Return the leader epoch that goes with `offset_named`; `NO_EPOCH` where none does."""
    return start.epoch(key) if isinstance(start, Resumed) else NO_EPOCH


def partitions_named(start: Start | None, topic_id: str) -> int:
    """Return one more than the highest partition of this topic that a start names; 0 where it names none."""
    if isinstance(start, AtOffsets) and start.topic_id == topic_id:
        return max(start.offsets, default=-1) + 1
    if isinstance(start, Resumed) and start.entry.identity == identity_of(topic_id):
        return start.entry.partitions
    return 0


def offsets_due(start: Start, topic: str, topic_id: str) -> dict[PartitionKey, int]:
    """Return the offsets that a start names of a topic, or of another one that had its name before: they are due, and lost with it."""
    if isinstance(start, AtOffsets):
        return {PartitionKey(topic, topic_id, partition): offset for partition, offset in start.offsets.items()} if start.topic_id else {}
    due: dict[PartitionKey, int] = {}
    if isinstance(start, Resumed) and start.entry.identity is not None:
        for key in (PartitionKey(topic, topic_id, partition) for partition in range(start.entry.partitions)):
            offset = start.offset(key) if start.entry.identity == identity_of(topic_id) else start.recreated(key)
            if offset is not None:
                due[key] = offset
    return due


def rather_early(start: Start, since: Since) -> Start:
    """Return how somebody begins, whom no broker has told of the topic by the accept, so that what is acknowledged after it is had."""
    match start:
        case Latest():
            return since
        case Rewind(messages):
            return Rewind(messages, not_after_ms=since.time_ms)
        case Resumed(entry, Latest() | Rewind() as otherwise, not_before):
            return Resumed(entry, Rewind(otherwise.messages, since.time_ms) if isinstance(otherwise, Rewind) else since, not_before)
    return start


LATEST = Latest()
EARLIEST = Earliest()
FROM_ZERO = AtOffsets("", {})  # the start of a topic that came to life after it was followed


def some_seconds_ago() -> Since:
    """Return where a session begins that no broker could be asked for: `EARLIER_MS` before now."""
    return Since((time.time_ns() // 1_000_000 - EARLIER_MS) // 1000 * 1000)  # whole seconds: five thousand sessions ask as one


class Starts:
    """Gives followers their cursors: at once, or when it is known where they begin.

    Args:
        offsets: asks brokers.
        memory: where what is read is counted.
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
        """Read and wait for what beginnings take, until cancelled."""
        async with trio.open_nursery() as readings:
            while True:
                version = self._more.version
                while self._to_read:
                    readings.start_soon(self._run_reading, *self._to_read.popleft())
                await self._more.wait_beyond(version)

    def begin(self, follower: Follower, logs: Mapping[PartitionLog, int], start: Start) -> None:
        """Give `follower` its cursors in logs of one topic, now or when it is known where.

        Args:
            follower: who begins.
            logs: each with its head, as that is or was when it came.
            start: where it wants to.
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
        """Where `follower` begins in a partition is fixed, or wanted no longer: withdraw what is asked and read for it."""
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
        """Return what `follower` waits for; None where that is nothing."""
        return self._pending.get(follower)

    def is_placed(self, follower: Follower, log: PartitionLog) -> bool:
        """Whether it is fixed where `follower` begins in a log, or being found out."""
        if log.key in follower.cursors:
            return True
        pending = self._pending.get(follower)
        if pending is None:
            return False
        asked = log.key in pending.questions and pending.questions[log.key].open
        return asked or any(log in reading.logs for reading in pending.readings)

    async def wait_answers(self, follower: Follower) -> None:
        """Wait until brokers have answered all that is asked of them for `follower`."""
        while (pending := self._pending.get(follower)) is not None and pending.questions:
            await pending.changes.wait_beyond(pending.changes.version)

    async def wait_readings(self, follower: Follower) -> None:
        """Wait for what is read for `follower`, at most `READ_SECONDS` from its beginning; where brokers are away that takes longer.

        Where one has told that a partition ends before the offset that is due, the seconds that decide it are waited for.
        """
        while (pending := self._pending.get(follower)) is not None and pending.readings:
            until = pending.since + (BEYOND_SECONDS + 2 * LOOK_SECONDS if pending.beyond else READ_SECONDS)
            with trio.move_on_at(until) as waiting:
                await pending.changes.wait_beyond(pending.changes.version)
            if waiting.cancelled_caught:
                return

    def forget(self, key: PartitionKey) -> None:
        """Ask nothing more of a partition; who waits for it is told by `resolve`, or begins again."""
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
            case AtOffsets(topic_id, offsets):
                if topic_id not in ("", log.key.topic_id) and log.key.partition in offsets:
                    follower.on_gap(log.key, offsets[log.key.partition], 0, LossCause.RECREATED)
                follower.follow(log, start.offset(log.key))

    def _resume(self, follower: Follower, log: PartitionLog, start: Resumed) -> Unresumed | None:
        """Begin where a cursor says; return how else to begin where it says nothing."""
        recreated = start.recreated(log.key)
        if recreated is not None:
            follower.on_gap(log.key, recreated, 0, LossCause.RECREATED)
        due, epoch = start.offset(log.key), start.epoch(log.key)
        if due is None:
            return start.otherwise
        if epoch in (NO_EPOCH, log.epochs.latest):
            self._resume_at(follower, log, due)
        else:  # there was an election since, perhaps an unclean one: is what its client has had still there?
            self._ask(follower, log, end_of_epoch(epoch), partial(self._resume_before, follower, log, due))
        return None

    def _resume_before(self, follower: Follower, log: PartitionLog, due: int, end: int) -> None:
        """Go on at `due`, or where the epoch ended in which its client has had what is before it: behind that are other records now."""
        if self._may_begin(follower, log):
            if end < due:
                follower.on_gap(log.key, due, end, LossCause.TRUNCATED)
            self._resume_at(follower, log, min(due, end))

    def _resume_at(self, follower: Follower, log: PartitionLog, due: int) -> None:
        if due > log.head:  # a broker may be a moment behind, or have lost its end
            self._read(follower, {log: due}, partial(self._find_end, follower, log.head))
        elif due == log.head or log.batch_at(due) is not None:
            follower.follow(log, due)
        else:  # is it still there?
            self._ask(follower, log, EARLIEST_TIMESTAMP, partial(self._begin_at_due, follower, log, due))

    def _ask(self, follower: Follower, log: PartitionLog, time_ms: int, begin: Callable[[int], None]) -> None:
        """Have `begin` called with the offset of a time; see `OffsetQueries`."""
        self._pending.setdefault(follower, Pending()).questions[log.key] = self._offsets.put(log.key, time_ms, begin)

    def _begin_at_told(self, follower: Follower, log: PartitionLog, head: int, offset: int) -> None:
        """Begin at an offset that a broker told, and not above the head as it was when that was asked."""
        if self._may_begin(follower, log):
            follower.follow(log, min(offset, head))

    def _begin_at_due(self, follower: Follower, log: PartitionLog, due: int, first_left: int) -> None:
        """Begin at the offset that is due, or where a broker told that the rest begins."""
        if self._may_begin(follower, log):
            if first_left > due:
                follower.on_gap(log.key, due, first_left, LossCause.RETENTION)
            follower.follow(log, max(first_left, due))

    def _may_begin(self, follower: Follower, log: PartitionLog) -> bool:
        """Take note that it is known where `follower` begins; whether it still wants to: it may have left, and come again."""
        self.resolve(follower, log.key)
        return log.key not in follower.cursors and self._wanted(follower, log)

    def _read(self, follower: Follower, logs: Mapping[PartitionLog, int], find: Callable[[Reading], Awaitable[None]]) -> None:
        """Have a task find where `follower` begins in logs."""
        pending = self._pending.setdefault(follower, Pending())
        reading = Reading(find)
        reading.logs.update(logs)
        pending.readings.append(reading)
        self._to_read.append((follower, reading))
        self._more.note()

    async def _run_reading(self, follower: Follower, reading: Reading) -> None:
        with reading.scope:
            if reading.logs:  # else it was wanted no longer before this task began
                await reading.find(reading)

    async def _rewind(self, follower: Follower, start: Rewind, reading: Reading) -> None:
        """Begin so many messages before the heads, over all logs together."""
        ends = dict(reading.logs)
        begins = await last_messages(ends, start.messages, view=follower.view, page_reads=follower.page_reads, memory=self._memory)
        if start.not_after_ms is not None:
            told: dict[PartitionKey, int] = {}
            while missing := [log.key for log in reading.logs if log.key not in told]:
                async with self._offsets.ask(missing, start.not_after_ms) as answers:
                    with trio.move_on_after(LOST_SECONDS):  # the question about a log that is lost meanwhile is forgotten
                        await answers.all()
                    told |= answers.told
            begins = {log: min(begin, told[log.key]) for log, begin in begins.items() if log.key in told}
        for log, begin in begins.items():
            if log in reading.logs and self._may_begin(follower, log):
                follower.follow(log, begin)

    async def _find_end(self, follower: Follower, head: int, reading: Reading) -> None:
        """Begin at the offset that is due once the log has come there; or where it ended at first, if it stays shorter for long.

        A broker may be a moment behind, so what is written meanwhile may be what was there before; it is due all the same where the
        log has lost its end.
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
            pending = self._pending[follower]
            pending.beyond.add(log.key)
            pending.changes.note()
            await trio.sleep(LOOK_SECONDS)
        if log in reading.logs and self._may_begin(follower, log):
            if end < due:
                end = min(end, head)
                follower.on_gap(log.key, due, end, LossCause.TRUNCATED)
            follower.follow(log, end)
