"""A version number that increases with each change, for tasks that wait for the next change."""

from __future__ import annotations

import trio


class Changes:
    """A counter of changes, and the tasks that wait for the next one.

    A task reads the version, looks at the state, and then waits for a higher version, so it misses no change in between. For a
    state that lasts, such as an accepted client or a worker to be renewed, use a `trio.Event`, which stays set.

    Attributes:
        version: the number of changes so far.
    """

    __slots__ = ("_next", "version")

    def __init__(self) -> None:
        self.version = 0
        self._next: trio.Event | None = None  # set by the next change; None while no task waits

    def note(self) -> None:
        """Note a change, and wake the tasks that wait for it."""
        self.version += 1
        if self._next is not None:
            self._next.set()
            self._next = None

    async def wait_beyond(self, version: int) -> None:
        """Return once the version is higher than `version`. Always a checkpoint."""
        if self.version > version:
            await trio.lowlevel.checkpoint()
        while self.version <= version:
            if self._next is None:
                self._next = trio.Event()
            await self._next.wait()
