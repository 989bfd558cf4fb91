"""Reports when the server begins to shut down, whichever command started it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Shutdown:
    """Only hypercorn's connections see the shutdown, so the first connection reports it; without one there is nothing to end."""

    def __init__(self) -> None:
        self._wait: Callable[[], Awaitable[None]] | None = None
        self._known = trio.Event()

    def comes_with(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Take `wait` as the function that returns when the shutdown begins. Only the first call counts."""
        if self._wait is None:
            self._wait = wait
            self._known.set()

    async def begun(self) -> None:
        """Wait until the shutdown begins."""
        await self._known.wait()
        if self._wait is not None:
            await self._wait()
