"""A version that increases with each change, for tasks that wait for the next one."""

from __future__ import annotations

import trio


class Changes:
    """A counter of changes, and the tasks that wait for the next one.

    A waiting task reads the version, looks at the state, and then waits for a later version, so a change in between is not
    missed. A state that lasts for a while, such as a greeted client or a worker to be renewed, is a `trio.Event` that stays set.

    Attributes:
        version: how many changes there were.
    """

    __slots__ = ("_next", "version")

    def __init__(self) -> None:
        self.version = 0
        self._next: trio.Event | None = None  # set by the next change; none while nobody waits

    def note(self) -> None:
        """Note a change, and wake the tasks that wait for it."""
        self.version += 1
        if self._next is not None:
            self._next.set()
            self._next = None

    async def wait_beyond(self, version: int) -> None:
        """Return once the version is higher than `version`. A checkpoint in any case."""
        if self.version > version:
            await trio.lowlevel.checkpoint()
        while self.version <= version:
            if self._next is None:
                self._next = trio.Event()
            await self._next.wait()
