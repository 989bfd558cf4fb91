"""Calls live sockets when their token's time is over, with one heap and one task for all sockets."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

import trio

from ...changes import Changes
from ...loop_sharing import Turn

LEFT_BEHIND = 1000  # entries of closed sockets; beyond that, and beyond half of all entries, they are removed


class HasDeadline(Protocol):
    """The part of a live socket that concerns its token."""

    @property
    def deadline(self) -> float | None:
        """When to call `on_deadline`, on trio's clock; None: never."""

    def on_deadline(self) -> None:
        """Do what is due; afterwards `deadline` is the next one."""


class Deadlines:
    """The deadlines of all sockets' tokens, on trio's clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._sockets: dict[int, HasDeadline] = {}  # by the number of their entry
        self._numbers: dict[HasDeadline, int] = {}
        self._next = count()
        self._sooner = Changes()

    def __len__(self) -> int:
        """How many sockets have a deadline."""
        return len(self._numbers)

    def watch(self, live: HasDeadline) -> None:
        """Call `live.on_deadline()` at `live.deadline`, if it has one; replaces an earlier deadline."""
        self.forget(live)
        if live.deadline is None:
            return
        number = next(self._next)
        self._numbers[live] = number
        self._sockets[number] = live
        heappush(self._heap, (live.deadline, number))
        if self._heap[0][1] == number:
            self._sooner.note()

    def forget(self, live: HasDeadline) -> None:
        """Do not call it any more."""
        number = self._numbers.pop(live, None)
        if number is None:
            return
        del self._sockets[number]
        left_behind = len(self._heap) - len(self._sockets)
        if left_behind > LEFT_BEHIND and left_behind > len(self._sockets):
            self._heap = [entry for entry in self._heap if entry[1] in self._sockets]
            heapify(self._heap)

    async def run(self) -> None:
        """Call each socket at its time, until cancelled."""
        turn = Turn()
        while True:
            version = self._sooner.version
            seconds = self._heap[0][0] - trio.current_time() if self._heap else None
            if seconds is None or seconds > 0:
                with trio.move_on_after(float("inf") if seconds is None else seconds):
                    await self._sooner.wait_beyond(version)
                continue
            live = self._sockets.pop(heappop(self._heap)[1], None)
            if live is not None:
                del self._numbers[live]
                live.on_deadline()
                self.watch(live)
            await turn.share()
