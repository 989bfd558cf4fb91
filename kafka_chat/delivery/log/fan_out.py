"""Offers what is new in a log to the sessions that wait at its head, and wakes the others.

Measured: an offer costs a quarter of waking a task per message. Position decides who gets what, so joining and new batches
during a walk need no care; who has left is left out.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import trio

from ..records.batch import Chunk
from ..records.formats import PLAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...telemetry.metrics import Telemetry
    from .cursor import LogCursor
    from .partition_log import PartitionLog

WALK_SECONDS = 0.002  # then the other tasks have their turn
OFFERS_A_LOOK = 16  # offers between two looks at the clock: some 100 µs
WHOLE = 1 << 62  # bytes: all of the range that is offered, whatever it takes in another form


class FanOut:
    """The logs with news, in the order in which they got them."""

    def __init__(self, *, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._changed: dict[PartitionLog, None] = {}
        self._news = trio.Event()

    def changed(self, log: PartitionLog) -> None:
        """Walk the followers of `log` soon, for its head has moved."""
        self._changed[log] = None
        self._news.set()

    def forget(self, log: PartitionLog) -> None:
        """Do not walk `log` any more."""
        self._changed.pop(log, None)

    async def run(self) -> None:
        """Walk one changed log after the other, until cancelled."""
        while True:
            while self._changed:
                log = next(iter(self._changed))
                del self._changed[log]
                await self._walk(log)
                if log.offered < log.head:
                    self._changed[log] = None  # its turn comes again after the others
            self._news = trio.Event()
            await self._news.wait()

    async def _walk(self, log: PartitionLog) -> None:
        first, chunk = log.offered, log.fresh()
        if chunk is None:
            log.offered = log.head
            for cursor in log.cursors:
                if cursor.position < log.head:
                    cursor.session.wake()
            return
        log.offered = chunk.next
        for view in tuple(log.followers):
            piece = chunk if view is PLAIN else log.read(first, WHOLE, view, end=chunk.next)
            if view in log.followers and isinstance(piece, Chunk):
                delivered = await self._offer_all(log, log.followers[view], first, piece)
                if delivered and piece.messages:
                    self._telemetry.delivered(messages=delivered * piece.messages, size=delivered * len(piece.data))
            else:  # forgotten by memory while others were walked
                for cursor in tuple(log.followers.get(view, ())):
                    cursor.session.wake()

    async def _offer_all(self, log: PartitionLog, cursors: Mapping[LogCursor, None], first: int, chunk: Chunk) -> int:
        """Give `chunk`, which begins at `first`, to all who are parked right before it; return how many that are.

        Those that are not parked read for themselves: they are woken, for they may wait for a page of another log.
        """
        data, after, messages = chunk
        size = len(data)
        delivered = 0
        began = perf_counter()
        for count, cursor in enumerate(list(cursors)):
            if not count % OFFERS_A_LOOK and perf_counter() - began > WALK_SECONDS:
                await trio.lowlevel.checkpoint()
                began = perf_counter()
            if cursor not in cursors:  # it has left while the others had their turn
                continue
            session = cursor.session
            if session.parked and cursor.position == first:
                cursor.position = after
                delivered += 1
                if messages:
                    session.messages += messages
                    session.bytes_sent += size
                    if not session.sink.offer(data):
                        session.wake()
            elif not session.parked or cursor.position < log.head:
                session.wake()
        return delivered
