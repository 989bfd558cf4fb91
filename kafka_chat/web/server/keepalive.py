"""Checks the time limits of all connections periodically, so that none needs a task for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from ...loop_sharing import Turn

if TYPE_CHECKING:
    from ...settings.model import Limits

LOOKS = 4  # checks of a connection within the shortest limit: a limit may be exceeded by a quarter
TURNS = 16  # a check of all connections is spread over this many turns
STOOD_STILL_SECONDS = 1.0  # a turn that is later than this shows that the process was stopped, or its machine paused


class Pingable(Protocol):
    """The part of a connection that the keepalive uses."""

    def check_alive(self, now: float) -> None:
        """Ping, or abort, or do nothing, without waiting.

        Args:
            now: `trio.current_time()`.
        """

    def stood_still(self, seconds: float) -> None:
        """Do not count the last `seconds`: no pings were sent then, and what the client sent is not read yet.

        Args:
            seconds: how long the process stood still.
        """


class Keepalive:
    """One task for all connections.

    They are divided into `TURNS` sets, one of which is checked per turn: the checks of ten thousand connections cost
    0.2 % of a core, and never happen all at once.
    """

    def __init__(self, limits: Limits) -> None:
        self._seconds = min(limits.ping_seconds, limits.pong_seconds, limits.write_seconds) / LOOKS / TURNS
        self._turns: list[set[Pingable]] = [set() for _ in range(TURNS)]
        self._dealt = 0

    def watch(self, connection: Pingable) -> int:
        """Check `connection` from now on; returns the turn, which `unwatch` needs."""
        self._dealt += 1
        turn = self._dealt % TURNS
        self._turns[turn].add(connection)
        return turn

    def unwatch(self, connection: Pingable, turn: int) -> None:
        """Stop checking it."""
        self._turns[turn].discard(connection)

    async def run(self) -> None:
        """Check them until cancelled."""
        while True:
            for turn in self._turns:
                due = trio.current_time() + self._seconds
                await trio.sleep_until(due)
                late = trio.current_time() - due
                if late > STOOD_STILL_SECONDS:
                    await self._stood_still(late)
                await _check_all(turn)

    async def _stood_still(self, seconds: float) -> None:
        """Call `stood_still` of all connections, even of those that end meanwhile."""
        walk = Turn()
        for connection in [connection for turn in self._turns for connection in turn]:
            connection.stood_still(seconds)
            await walk.share()


async def _check_all(turn: set[Pingable]) -> None:
    # Not in `run`, whose frame would keep the last connection alive.
    walk = Turn()
    for connection in tuple(turn):  # harmless for a connection that ends meanwhile
        connection.check_alive(trio.current_time())
        await walk.share()
