"""Connections that wait for a request: how long, which one is closed to make room, and how a shutdown ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from ...loop_sharing import Turn

if TYPE_CHECKING:
    from .shutdown import Shutdown

FIRST_WORDS_SECONDS = 0.5  # for a client that has just connected when the shutdown begins to say what for


class Idle(Protocol):
    """A connection that waits for a request."""

    def end(self) -> None:
        """End it in good order; the client has half a second to notice."""

    def give_way(self) -> None:
        """Close it now, and give its place back in this step."""


class IdleConnections:
    """All connections of the process that wait for a request.

    Args:
        shutdown: ends them.
    """

    def __init__(self, shutdown: Shutdown) -> None:
        self._expected: dict[Idle, None] = {}  # their first request, or the rest of one that has begun
        self._between: dict[Idle, None] = {}  # two requests, the longest idle first
        self._shutdown = shutdown

    def expect(self, connection: Idle) -> None:
        """A request has begun, or the connection has: it gives way to nobody."""
        self._between.pop(connection, None)
        self._expected[connection] = None

    def rest(self, connection: Idle) -> None:
        """A request has been answered, and nothing has come since."""
        self._expected.pop(connection, None)
        self._between[connection] = None

    def leave(self, connection: Idle) -> None:
        """It waits no longer: a request is there, or the end. No error if it did not wait."""
        self._expected.pop(connection, None)
        self._between.pop(connection, None)

    def rests(self, connection: Idle) -> bool:
        """Whether it waits for a request of which nothing has come, and not for its first one."""
        return connection in self._between

    def make_room(self) -> bool:
        """Close the connection that has rested for longest; returns whether there was one."""
        longest = next(iter(self._between), None)
        if longest is None:
            return False
        self.leave(longest)
        longest.give_way()
        return True

    async def run(self) -> None:
        """Wait for the shutdown, and end them."""
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
    """In the place of the task by which hypercorn ends a connection that is idle: `check_alive` does, and costs a tenth of it."""

    async def restart(self, *_: object) -> None:
        """Begin nothing."""

    async def stop(self) -> None:
        """End nothing."""


NO_TASK = _NoTask()
