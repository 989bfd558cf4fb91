"""Reports when the server begins to shut down, whichever command started it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Shutdown:
    """Known to hypercorn's connections alone, so the first one brings it; before there is one, nobody has to be told of it."""

    def __init__(self) -> None:
        self._wait: Callable[[], Awaitable[None]] | None = None
        self._known = trio.Event()

    def comes_with(self, wait: Callable[[], Awaitable[None]]) -> None:
        """It has begun once `wait` returns. Only the first call counts."""
        if self._wait is None:
            self._wait = wait
            self._known.set()

    async def begun(self) -> None:
        """Wait until it has."""
        await self._known.wait()
        if self._wait is not None:
            await self._wait()
