"""Checks every connection's time limits from time to time, so that none needs its own task for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from ...loop_sharing import Turn

if TYPE_CHECKING:
    from ...settings.model import Limits

LOOKS = 4  # how often a connection is looked at within the shortest limit: a limit is kept up to a quarter late
TURNS = 16  # a look at all connections is spread over so many turns of the loop
STOOD_STILL_SECONDS = 1.0  # how late a turn is that shows that the process stood still: stopped, or its machine was paused


class Pingable(Protocol):
    """A connection, as the keepalive sees it."""

    def check_alive(self, now: float) -> None:
        """Ping, or abort, or do nothing. A plain function: nothing is waited for.

        Args:
            now: `trio.current_time()`.
        """

    def stood_still(self, seconds: float) -> None:
        """Do not count the last so many seconds: nobody pinged in them, and what the client said is not read yet.

        Args:
            seconds: how long the process stood still.
        """


class Keepalive:
    """One task for all connections.

    They are dealt out to `TURNS` sets, one of which is looked at in a turn: ten thousand connections cost 0.2 % of a
    core for the looks, and are never all looked at in the same instant.
    """

    def __init__(self, limits: Limits) -> None:
        self._seconds = min(limits.ping_seconds, limits.pong_seconds, limits.write_seconds) / LOOKS / TURNS
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
                due = trio.current_time() + self._seconds
                await trio.sleep_until(due)
                late = trio.current_time() - due
                if late > STOOD_STILL_SECONDS:
                    await self._stood_still(late)
                await _check_all(turn)

    async def _stood_still(self, seconds: float) -> None:
        """Say so to all that are here. One that ends meanwhile does not mind."""
        walk = Turn()
        for connection in [connection for turn in self._turns for connection in turn]:
            connection.stood_still(seconds)
            await walk.share()


async def _check_all(turn: set[Pingable]) -> None:
    # Not in `run`, which would hold the last connection that it has seen.
    walk = Turn()
    for connection in tuple(turn):  # one that ends meanwhile does not mind
        connection.check_alive(trio.current_time())
        await walk.share()
