"""Looks at every connection now and then, so that none needs a task of its own for its time limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from ...settings.model import Limits

LOOKS = 4  # how often a connection is looked at within the shortest limit: a limit is kept up to a quarter late
TURNS = 16  # a look at all connections is spread over so many turns of the loop


class Pingable(Protocol):
    """A connection, as the keepalive sees it."""

    def check_alive(self, now: float) -> None:
        """Ping, or abort, or do nothing. A plain function: nothing is waited for.

        Args:
            now: `trio.current_time()`.
        """


class Keepalive:
    """One task for all connections.

    They are dealt out to `TURNS` sets, one of which is looked at in a turn: ten thousand connections cost 0.2 % of a
    core for the looks, and are never all looked at in the same instant.
    """

    def __init__(self, limits: Limits) -> None:
        self._seconds = min(limits.ping_seconds, limits.pong_seconds) / LOOKS / TURNS
        self._turns: list[set[Pingable]] = [set() for _ in range(TURNS)]
        self._dealt = 0

    def watch(self, connection: Pingable) -> int:
        """Look at `connection` from now on; returns what `unwatch` needs."""
        self._dealt += 1
        turn = self._dealt % TURNS
        self._turns[turn].add(connection)
        return turn

    def unwatch(self, connection: Pingable, turn: int) -> None:
        """No longer look at it."""
        self._turns[turn].discard(connection)

    async def run(self) -> None:
        """Look at them for as long as this is not cancelled."""
        while True:
            for turn in self._turns:
                await trio.sleep(self._seconds)
                _check_all(turn)


def _check_all(turn: set[Pingable]) -> None:
    # Not in `run`, which would hold the last connection that it has seen.
    now = trio.current_time()
    for connection in tuple(turn):
        connection.check_alive(now)
