"""Yields to other tasks during a long walk."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

TURN_SECONDS = 0.002  # how long a walk may block the loop; the total limit is 10 ms, and its last item may take long


class Turn:
    """A walk's share of the loop: `await turn.share()` between two items yields once the turn is over.

    The collection may change at each `share`, so walk over a copy, and check whether each item is still valid.
    """

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began = perf_counter()

    @property
    def over(self) -> bool:
        """Whether it is time to yield."""
        return perf_counter() - self._began > TURN_SECONDS

    async def share(self) -> None:
        """If the turn is over, pass a checkpoint and begin the next turn; otherwise return at once, without a checkpoint."""
        if self.over:
            await self._others()
            self._began = perf_counter()

    async def _others(self) -> None:
        await trio.lowlevel.checkpoint()


class TurnInLine(Turn):
    """A turn of a walk of which hundreds may run concurrently, such as reading a page: one of them continues in each iteration.

    With plain `Turn`s, one iteration of the loop would contain hundreds of turns, and messages would wait for its end.

    Args:
        line: the walks of one line wait for each other; those of different lines do not.
    """

    __slots__ = ("_line",)

    def __init__(self, line: str = "pages") -> None:
        super().__init__()
        self._line = line

    async def begin(self) -> None:
        """Wait for the first turn."""
        await self._others()
        self._began = perf_counter()

    async def _others(self) -> None:
        line = _line(self._line)
        if line.moves:
            await line.wait()
        else:
            line.moves = True
            try:
                await trio.lowlevel.checkpoint()
            except BaseException:
                line.call_next()
                raise
        line.call_next()


class _Line:
    """The walks that wait for an iteration, in order of arrival.

    Attributes:
        moves: whether one of them has the next iteration.
    """

    __slots__ = ("_waiting", "moves")

    def __init__(self) -> None:
        self.moves = False
        self._waiting: dict[trio.lowlevel.Task, None] = {}

    async def wait(self) -> None:
        """Return in an iteration in which no other walk of the line continues."""
        task = trio.lowlevel.current_task()
        self._waiting[task] = None

        def leave(_raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
            del self._waiting[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    def call_next(self) -> None:
        """Give the next iteration to the walk that has waited longest."""
        if self._waiting:
            task = next(iter(self._waiting))
            del self._waiting[task]
            trio.lowlevel.reschedule(task)
        else:
            self.moves = False


_LINES: trio.lowlevel.RunVar[dict[str, _Line]] = trio.lowlevel.RunVar("kafka_chat.loop_sharing")


def _line(name: str) -> _Line:
    """Return a line of this trio run."""
    try:
        lines = _LINES.get()
    except LookupError:
        _LINES.set(lines := {})
    return lines.setdefault(name, _Line())
