"""A version that goes up with each change, for those that wait for the next one."""

from __future__ import annotations

import trio


class Changes:
    """What changes, and who waits for that.

    Anyone who waits takes the version before looking, looks, and then waits for a later one: a change in between is not missed. What is so
    for a while, such as that a client is greeted or a worker is to be renewed, is a `trio.Event` that is set meanwhile, not a change.

    Attributes:
        version: how many changes there were.
    """

    __slots__ = ("_next", "version")

    def __init__(self) -> None:
        self.version = 0
        self._next: trio.Event | None = None  # set by the next change; none while nobody waits

    def note(self) -> None:
        """Take note of a change, and wake those that wait for it."""
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
