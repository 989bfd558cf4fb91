"""Reads pages, once for all readers of the same page.

A read runs in a task of the service, never in a session's: a session that leaves cancels no shared read, and cancelling it
never waits for a broker.

A leader that hangs would soon occupy all readers. So one that has not answered in `BrokerTimeouts.page_seconds` counts as silent
until it does: a separate patient reader reads from it, and the other readers are free for other leaders.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ...changes import Changes
from ...chat.loss_cause import LossCause
from ...chat.resume_cursor import NO_EPOCH
from ...errors import BrokerError, BrokerUnreachable, PositionLost, TopicGone
from ...loop_sharing import Turn
from ...nursery import open_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ...chat.partition_key import PartitionKey
    from ...telemetry.metrics import Telemetry
    from ..ports import PageSource
    from ..records.batch import Batch
    from .partition_log import PartitionLog

AGAIN_SECONDS = 1.0  # pause after a read that the brokers did not answer
DOUBT_SECONDS = 10.0  # how long the Tail may take to notice an election that rewrote a log; then the page is accepted


class PageRead:
    """One page read, and the readers that wait for it.

    Attributes:
        page: the result, unless the position is lost.
        lost: the error if the position is below the log's start.
        doubted: since when its results contradict the log; `trio.current_time()`.
        gone: whether the partition is gone; the Tail notifies its followers.
        waiting: the functions to call, once each, when it is done.
    """

    __slots__ = ("doubted", "gone", "key", "log", "lost", "page", "position", "waiting")

    def __init__(self, key: tuple[PartitionKey, int], log: PartitionLog, position: int) -> None:
        self.key = key
        self.log = log
        self.position = position
        self.page: Batch | None = None
        self.lost: PositionLost | None = None
        self.gone = False
        self.doubted: float | None = None
        self.waiting: dict[Callable[[], None], None] = {}

    @property
    def done(self) -> bool:
        """Whether it has a result."""
        return self.page is not None or self.lost is not None or self.gone

    def leave(self, wake: Callable[[], None]) -> None:
        """Stop waiting for it."""
        self.waiting.pop(wake, None)


class PageReads:
    """The pending page reads, in the order of the requests."""

    def __init__(self, source: PageSource, *, telemetry: Telemetry) -> None:
        self._source = source
        self._telemetry = telemetry
        self._reads: dict[tuple[PartitionKey, int], PageRead] = {}
        self._queue: deque[PageRead] = deque()
        self._queued = trio.Semaphore(0)
        self._silent: dict[int, deque[PageRead]] = {}  # leaders that do not answer -> the reads from them
        self._fell_silent = Changes()
        self._refused: list[PageRead] = []  # failed reads to repeat

    @property
    def waiting(self) -> int:
        """How many reads wait for their turn."""
        return len(self._queue) + sum(map(len, self._silent.values())) + len(self._refused)

    def want(self, log: PartitionLog, position: int, wake: Callable[[], None]) -> PageRead:
        """Request the page of `log` that contains `position`.

        Args:
            log: the log.
            position: an offset below its head.
            wake: called once when the read is done, unless `leave` was called before.
        """
        key = (log.key, log.page_range(position)[0])
        read = self._reads.get(key)
        # A pending page may end before this position; then it is requested again. The page of a log that has started over
        # may contain records that no longer exist.
        if read is None or read.log is not log:
            read = self._reads[key] = PageRead(key, log, position)
            self._add(read)
        read.waiting[wake] = None
        return read

    async def fetch(self, log: PartitionLog, position: int) -> Batch:
        """Return a batch of `log` that contains `position`, an offset below its head, from memory or as a page.

        Waits for as long as the brokers are away; cancelling it never waits for one.

        Raises:
            PositionLost: it is below the log's start.
            TopicGone: the topic or the partition is gone.
        """
        while (held := log.batch_at(position)) is None:
            done = trio.Event()
            wake = done.set
            read = self.want(log, position, wake)
            try:
                await done.wait()
            finally:
                read.leave(wake)
            if read.lost is not None and read.lost.first_left > position:
                raise PositionLost(asked=position, first_left=read.lost.first_left)
            if read.gone:
                raise TopicGone(f"{log.key} is gone", topic=log.key.topic, partition=log.key.partition)
            if read.page is not None and read.page.first <= position < read.page.next:
                return read.page  # memory may have dropped it
        await trio.lowlevel.checkpoint()
        return held

    async def run_reader(self) -> None:
        """Read page after page, until cancelled; there is one of these for each concurrent read."""
        while True:
            await self._queued.acquire()
            await self._read_next()

    async def run_again(self) -> None:
        """Repeat failed reads periodically, until cancelled."""
        while True:
            await trio.sleep(AGAIN_SECONDS)
            refused, self._refused = self._refused, []
            for read in refused:
                self._add(read)

    async def run_patient_readers(self) -> None:
        """Read from each leader that does not answer, until cancelled."""
        async with open_tasks() as readers:
            read_from: set[int] = set()
            while True:
                version = self._fell_silent.version
                for leader in self._silent.keys() - read_from:
                    read_from.add(leader)
                    readers.start_soon(self._read_patiently, leader, read_from)
                await self._fell_silent.wait_beyond(version)

    # Separate functions, because a loop's variables would keep the last page and its session alive until the next read.

    async def _read_next(self) -> None:
        read = self._queue.popleft()
        leader = self._source.leader(read.log.key)
        if leader in self._silent:
            self._silent[leader].append(read)
            return
        settled = False
        with trio.move_on_after(self._source.timeouts.page_seconds) as scope:
            settled = await self._read_once(read)
        if scope.cancelled_caught:
            self._silent.setdefault(leader, deque()).append(read)
            self._fell_silent.note()
        elif not settled:  # its leader answers, and may answer other reads
            self._refused.append(read)

    async def _read_patiently(self, leader: int, read_from: set[int]) -> None:
        """Read from a silent leader until it answers, or no read from it is wanted any more."""
        reads = self._silent[leader]
        while reads:
            read = reads.popleft()
            asked = trio.current_time()
            if not await self._read_once(read):
                if trio.current_time() - asked < self._source.timeouts.page_seconds:
                    self._refused.append(read)
                    break
                reads.append(read)
                await trio.sleep(AGAIN_SECONDS)
            elif read.done:
                break
        del self._silent[leader]
        read_from.remove(leader)
        for read in reads:
            self._add(read)

    async def _read_once(self, read: PageRead) -> bool:
        """Perform `read`, if a reader still waits for it; return False if its leader does not answer."""
        if read.waiting and not await self._finish(read):
            return False
        self._forget(read)
        with trio.CancelScope(shield=True):  # it does not block, and no reader must be woken twice
            turn = Turn()
            while read.waiting:  # readers that leave meanwhile are not woken; new ones make another request
                wake, _ = read.waiting.popitem()
                wake()
                await turn.share()
        return True

    async def _finish(self, read: PageRead) -> bool:
        """Set the result of `read`; return False if no broker gave one, so that it must be repeated."""
        log = read.log
        try:
            read.page = await self._read(read)
        except PositionLost as lost:
            read.lost = lost
            self._telemetry.position_lost(
                topic=log.key.topic, partition=log.key.partition, asked=lost.asked, first_left=lost.first_left, cause=LossCause.RETENTION
            )
        except TopicGone:
            read.gone = True
        except BrokerError as error:
            self._telemetry.page_read_failed(topic=log.key.topic, partition=log.key.partition, error=error)
            return False
        return True

    async def _read(self, read: PageRead) -> Batch:
        log, position = read.log, read.position
        while True:
            first, until = log.page_range(position)
            try:
                page = await self._source.read(log.key, first, until)
            except PositionLost as lost:
                if lost.first_left > position:
                    raise
                log.first_left = lost.first_left  # only the start of the page is gone, not the requested position
                continue
            self._telemetry.page_read(topic=log.key.topic, partition=log.key.partition, size=page.size)
            page.forget_rejected()  # the Tail reports rejected records, once
            _check_epochs(read, page)
            log.keep_page(page)
            if page.next > position:
                return page
            log.large_records = True

    def _add(self, read: PageRead) -> None:
        self._queue.append(read)
        self._queued.release()

    def _forget(self, read: PageRead) -> None:
        if self._reads.get(read.key) is read:
            del self._reads[read.key]


def _check_epochs(read: PageRead, page: Batch) -> None:
    """Refuse a page for now if it has records of a later leader epoch than our log: the partition was rewritten.

    The Tail is about to report that. A reader that continued would get a position in the new log without the records before it.

    Raises:
        BrokerUnreachable: read it again.
    """
    known = read.log.epochs.latest
    if known == NO_EPOCH or not page.epochs or page.epochs[-1][1] <= known:
        return
    now = trio.current_time()
    read.doubted = now if read.doubted is None else read.doubted
    if now - read.doubted < DOUBT_SECONDS:
        key = read.log.key
        raise BrokerUnreachable(f"{key} has another leader's records at offset {page.first}", topic=key.topic, partition=key.partition)


@asynccontextmanager
async def open_page_reads(reads: PageReads, *, readers: int) -> AsyncIterator[PageReads]:
    """Read pages while the block runs: at most `readers` concurrently, and one more from each leader that hangs."""
    async with open_tasks() as nursery:
        for _ in range(readers):
            nursery.start_soon(reads.run_reader)
        nursery.start_soon(reads.run_patient_readers)
        nursery.start_soon(reads.run_again)
        yield reads
