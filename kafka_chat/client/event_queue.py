"""Received events that the caller has not taken yet."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ..changes import Changes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .events import Control, Message

QUEUED_EVENTS = 100  # then reading stops, so that the service notices a slow caller


class Arrivals:
    """A bounded queue, which is unbounded while waiting for an answer, since that comes after the queued events.

    A caller that sends an op inside its receive loop takes no events meanwhile; with a bounded queue it would wait forever.
    """

    def __init__(self) -> None:
        self._events: deque[Message | Control] = deque()
        self._changes = Changes()
        self._askers = 0
        self._ended = False

    async def put(self, event: Message | Control) -> None:
        """Add an event, once there is room."""
        while len(self._events) >= QUEUED_EVENTS and not self._askers:
            await self._changes.wait_beyond(self._changes.version)
        self._events.append(event)
        self._changes.note()

    async def take(self) -> Message | Control | None:
        """Return the next event; None after the last one."""
        await trio.lowlevel.checkpoint()
        while not self._events:
            if self._ended:
                return None
            await self._changes.wait_beyond(self._changes.version)
        event = self._events.popleft()
        self._changes.note()
        return event

    def end(self) -> None:
        """Note that no more will be added."""
        self._ended = True
        self._changes.note()

    @contextmanager
    def unbounded(self) -> Iterator[None]:
        """Accept any number of events while the block runs."""
        self._askers += 1
        self._changes.note()
        try:
            yield
        finally:
            self._askers -= 1
