"""A client whose messages are each answered by one text frame, in order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...changes import Changes
from ..records.frames import text_header
from .live_socket import LiveSocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...telemetry.metrics import Telemetry
    from ..log.memory import Memory
    from ..ports import Inbox, Sink

# A thousand messages as people write them. A client with more waiting is not read from until there is room: its own socket
# slows it down, and nothing is lost.
WAITING_BYTES = 256 * 1024
MESSAGE_BYTES = 100  # what Python needs for one beside its bytes
LAST_SECONDS = 1.0  # for what a client asked just before it left


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """How a dialogue answers. Expected trouble is an answer; what these raise is a bug.

    Attributes:
        answer: turns a message into the payload of a text frame.
        opening: makes a first frame that is sent unasked; None for none.
    """

    answer: Callable[[str | bytes], Awaitable[bytes]]
    opening: Callable[[], Awaitable[bytes]] | None = None


class Dialogue(LiveSocket):
    """Answers one client until it is gone.

    Requests from before it left are still done, if that takes less than a second. If we end or cancel it, unanswered requests
    may or may not have been done.
    """

    __slots__ = ("_answer", "_changes", "_gone", "_memory", "_ops", "_waiting_bytes")

    def __init__(self, answering: Answering, *, username: str, memory: Memory, telemetry: Telemetry) -> None:
        super().__init__(username=username, telemetry=telemetry)
        self._memory = memory
        self._answer = answering.answer
        self._ops: deque[tuple[int, Callable[[], Awaitable[bytes]]]] = deque()
        self._waiting_bytes = 0
        self._changes = Changes()
        self._gone = False  # it reads no more answers
        if answering.opening is not None:
            self._ops.append((0, answering.opening))

    async def run(self, sink: Sink, inbox: Inbox) -> int:
        """As `LiveSocket.run`, for a dialogue."""
        try:
            return await super().run(sink, inbox)
        finally:
            self._count(-self._waiting_bytes)

    async def _serve(self, nursery: trio.Nursery) -> None:
        while True:
            while not self._ops:
                await self._changes.wait_beyond(self._changes.version)
            size, ask = self._ops[0]
            await self._say(await ask())
            self._ops.popleft()
            self._count(-size)
            self._changes.note()

    async def _say(self, payload: bytes) -> None:
        frame = text_header(len(payload)) + payload
        if not self._gone and not self.sink.offer(frame):
            with self._memory.owing(self.sink.owed):
                self._gone = not await self.sink.flush()
        if not self._gone:
            self.messages += 1
            self.bytes_sent += len(frame)
        await trio.lowlevel.checkpoint()

    async def _hear(self, nursery: trio.Nursery, said: str | bytes) -> None:
        size = len(said) + MESSAGE_BYTES
        self._ops.append((size, partial(self._answer, said)))
        self._count(size)
        self._changes.note()
        while self._waiting_bytes > WAITING_BYTES:
            await self._changes.wait_beyond(self._changes.version)

    async def _receive(self, nursery: trio.Nursery, inbox: Inbox) -> int:
        code = await super()._receive(nursery, inbox)
        self._gone = True
        with trio.move_on_after(LAST_SECONDS):
            while self._ops:
                await self._changes.wait_beyond(self._changes.version)
        return code

    def _count(self, size: int) -> None:
        """Count more, or fewer, bytes of messages that wait for their answers."""
        self._waiting_bytes += size
        self._memory.owe(size)
