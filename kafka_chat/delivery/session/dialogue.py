"""A client each of whose messages is answered by one text frame, in order."""

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

# A thousand messages of usual size. If a client has more waiting, reading from it pauses until there is room: TCP slows it down, and
# nothing is lost.
WAITING_BYTES = 256 * 1024
MESSAGE_BYTES = 100  # Python's overhead per message
LAST_SECONDS = 1.0  # for requests that a client sent just before it left


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """How a dialogue answers. Expected errors are answers; an exception here is a bug.

    Attributes:
        answer: returns the payload of the answer to a message.
        opening: makes a first frame, before any message; None: no such frame.
    """

    answer: Callable[[str | bytes], Awaitable[bytes]]
    opening: Callable[[], Awaitable[bytes]] | None = None


class Dialogue(LiveSocket):
    """Answers one client until it is gone.

    Requests sent before it left are still carried out, if that takes less than a second. If we end or cancel it, unanswered
    requests may or may not have been carried out.
    """

    __slots__ = ("_answer", "_changes", "_gone", "_memory", "_ops", "_waiting_bytes")

    def __init__(self, answering: Answering, *, username: str, memory: Memory, telemetry: Telemetry) -> None:
        super().__init__(username=username, telemetry=telemetry)
        self._memory = memory
        self._answer = answering.answer
        self._ops: deque[tuple[int, Callable[[], Awaitable[bytes]]]] = deque()
        self._waiting_bytes = 0
        self._changes = Changes()
        self._gone = False  # the client reads no more answers
        if answering.opening is not None:
            self._ops.append((0, answering.opening))

    async def run(self, sink: Sink, inbox: Inbox) -> int:
        """Answer until the client is gone or `end` is called; see `LiveSocket.run`."""
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
        """Count `size` more bytes of unanswered messages; fewer if negative."""
        self._waiting_bytes += size
        self._memory.owe(size)
