"""Offers a log's new messages to the followers parked at its head, and wakes the others.

An offer costs a quarter of waking a task (measured). A walk yields to other tasks. At its checkpoints, followers may join, leave,
or read for themselves; the log may grow or be closed, or memory may drop its batches; a view's last follower may leave. The
position decides what a follower gets, so joins and new batches need no care; followers that left are skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...changes import Changes
from ...loop_sharing import Turn
from ..records.batch import Chunk
from ..records.formats import PLAIN, Bound, Format

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ...telemetry.metrics import Telemetry
    from ..records.formats import View
    from .follower import LogCursor
    from .partition_log import PartitionLog

JOIN_BYTES = 256 * 1024  # of new frames joined for one offer; more would only wait in the kernel
OFFERS_A_LOOK = 16  # offers of the same bytes between two looks at the clock: about 100 µs
WHOLE = 1 << 62  # bytes: the whole range that is offered, whatever its size in another format


class FanOut:
    """The logs with new messages, in order."""

    def __init__(self, *, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._changed: dict[PartitionLog, None] = {}
        self._news = Changes()

    def changed(self, log: PartitionLog) -> None:
        """Walk the followers of `log` soon, because its head has moved."""
        self._changed[log] = None
        self._news.note()

    def forget(self, log: PartitionLog) -> None:
        """Do not walk `log` any more."""
        self._changed.pop(log, None)

    async def run(self) -> None:
        """Walk one changed log after the other, until cancelled."""
        while True:
            version = self._news.version
            while self._changed:
                log = next(iter(self._changed))
                del self._changed[log]
                await self._walk(log)
                if log.offered < log.head:
                    self._changed[log] = None  # again, after the others
            await self._news.wait_beyond(version)

    async def _walk(self, log: PartitionLog) -> None:
        turn = Turn()
        first, chunk = log.offered, log.read(log.offered, JOIN_BYTES)
        if not isinstance(chunk, Chunk):  # it is no longer in memory
            log.offered = log.head
            await self._wake_behind(log, log.cursors, turn)
            return
        log.offered = chunk.next
        for view in tuple(log.followers):
            await turn.share()
            piece = chunk if view is PLAIN else None
            if piece is None and any(cursor.follower.parked for cursor in log.followers.get(view, ())):  # a follower waits for it
                piece = await self._rendered(log, view, first, chunk.next, turn)
            followers = log.followers.get(view, {})
            if piece is None:  # or memory has dropped it during other walks
                await self._wake_behind(log, followers, turn)
            else:
                await self._offer_all(log, followers, first, piece, turn, offers_a_look=_offers_a_look(view))

    async def _rendered(self, log: PartitionLog, view: View, first: int, end: int, turn: Turn) -> Chunk | None:
        """Return `[first, end)` in a view, rendered batch by batch; None if not all of it is in memory."""
        position = first
        while position < end and (batch := log.batch_at(position)) is not None:
            log.render(batch, view)
            position = batch.next
            await turn.share()
        piece = log.read(first, WHOLE, view, bound=Bound(end))
        return piece if isinstance(piece, Chunk) and piece.next == end else None

    async def _wake_behind(self, log: PartitionLog, cursors: Iterable[LogCursor], turn: Turn) -> None:
        """Wake followers that are not parked, or have not read all of `log`. Waking one that has left is harmless."""
        for cursor in tuple(cursors):
            await turn.share()
            if not cursor.follower.parked or cursor.position < log.head:
                cursor.follower.wake()

    async def _offer_all(
        self, log: PartitionLog, cursors: Mapping[LogCursor, None], first: int, chunk: Chunk, turn: Turn, *, offers_a_look: int
    ) -> None:
        """Offer `chunk`, which begins at `first`, to all followers parked right before it.

        Others are woken to read for themselves, because they may be waiting for a page of another log.
        """
        deliveries = size = 0
        walked, shared = list(cursors), False
        for begin in range(0, len(walked), offers_a_look):
            if turn.over:
                await turn.share()
                shared = True
            for cursor in walked[begin : begin + offers_a_look]:
                if shared and cursor not in cursors:  # it has left meanwhile
                    continue
                follower = cursor.follower
                if follower.parked and cursor.position == first:
                    if taken := follower.offer(cursor, chunk):
                        size += taken
                        deliveries += 1
                elif not follower.parked or cursor.position < log.head:
                    follower.wake()
        if deliveries:
            self._telemetry.delivered(messages=deliveries * chunk.messages, size=size)


def _offers_a_look(view: View) -> int:
    """Return how many offers to make between two looks at the clock: fewer for events, whose cursors are made per client."""
    return 1 if view.format is Format.EVENTS else OFFERS_A_LOOK
