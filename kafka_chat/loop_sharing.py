"""Gives other tasks their turn during a long walk."""

from __future__ import annotations

from time import perf_counter

import trio

TURN_SECONDS = 0.002  # how long a walk may hold the loop; nobody may hold it for over 10 ms, and a step's last item may be long


class Turn:
    """A walk's share of the loop: `await turn.share()` between two items, and others run once the turn is over.

    What the walk goes over may change at each `share`, so it walks over a copy, and asks of each item whether it still counts.
    """

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began = perf_counter()

    @property
    def over(self) -> bool:
        """Whether it is time for others."""
        return perf_counter() - self._began > TURN_SECONDS

    async def share(self) -> None:
        """Pass a checkpoint if the turn is over, and begin the next one; else go on at once, without a checkpoint."""
        if self.over:
            await trio.lowlevel.checkpoint()
            self._began = perf_counter()
