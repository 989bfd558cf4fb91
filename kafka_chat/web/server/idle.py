"""Connections that wait for a request: which one is closed to make room, and how a shutdown ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from ...loop_sharing import Turn

if TYPE_CHECKING:
    from .shutdown import Shutdown

FIRST_WORDS_SECONDS = 0.5  # for a client that has just connected when the shutdown begins to send its request


class Idle(Protocol):
    """A connection that waits for a request."""

    def end(self) -> None:
        """End it gracefully; the client has half a second to notice."""

    def give_way(self) -> None:
        """Close it now, and stop counting it in the same step."""


class IdleConnections:
    """All connections of the process that wait for a request.

    Args:
        shutdown: ends them when it begins.
    """

    def __init__(self, shutdown: Shutdown) -> None:
        self._expected: dict[Idle, None] = {}  # waiting for their first request, or for the rest of one
        self._between: dict[Idle, None] = {}  # between two requests, the longest idle first
        self._shutdown = shutdown

    def expect(self, connection: Idle) -> None:
        """Note that `connection`, or a request on it, has begun: it is not closed to make room."""
        self._between.pop(connection, None)
        self._expected[connection] = None

    def rest(self, connection: Idle) -> None:
        """Note that a request has been answered, and nothing has come since."""
        self._expected.pop(connection, None)
        self._between[connection] = None

    def leave(self, connection: Idle) -> None:
        """Note that it no longer waits: a request has come, or the end. No error if it did not wait."""
        self._expected.pop(connection, None)
        self._between.pop(connection, None)

    def rests(self, connection: Idle) -> bool:
        """Whether it is between two requests."""
        return connection in self._between

    def make_room(self) -> bool:
        """Close the connection that has been idle between requests for longest; returns whether there was one."""
        longest = next(iter(self._between), None)
        if longest is None:
            return False
        self.leave(longest)
        longest.give_way()
        return True

    async def run(self) -> None:
        """Wait for the shutdown, then end them all."""
        await self._shutdown.begun()
        await _end(self._between)
        await trio.sleep(FIRST_WORDS_SECONDS)
        await _end(self._between)
        await _end(self._expected)


async def _end(connections: dict[Idle, None]) -> None:
    turn = Turn()
    for connection in tuple(connections):
        if connection in connections:
            connection.end()
        await turn.share()


class _NoTask:
    """Replaces the task with which hypercorn ends an idle connection: `check_alive` does that at a tenth of the cost."""

    async def restart(self, *_: object) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""


NO_TASK = _NoTask()
