"""One client: its cursors, and the nursery that delivers to it until it is gone."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from .batch import Chunk, PartitionKey
from .log import Cursor, Elsewhere, PartitionLog
from .seams import Disconnect, Inbox, Sink

if TYPE_CHECKING:
    from ..telemetry import Telemetry
    from .memory import Memory
    from .page_reads import PageReads

ROUND_BYTES = 64 * 1024  # of each partition in turn, so that one chat's history does not starve another's live end
HAD_PARTITIONS = 1000  # left ones whose position is remembered, in case they are followed again
TALK_FRAMES = 1000  # a client that only listens may send so many frames …
TALK_SECONDS = 10.0  # … in so many seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Why we end a session: RFC 6455 section 7.4 code, and a reason of at most 123 bytes of UTF-8."""

    code: int
    reason: str


class Session:
    """Delivers what is at its cursors, in the order of offsets, once each.

    The `Audience` gives it cursors and takes them away. It is *parked* when all of its cursors are at the head and
    nothing is owed: then, and only then, the fan-out offers it what comes. All else it reads for itself.

    Attributes:
        session_id: for the operator's eyes.
        username: whose messages it delivers.
        cursors: its place in each partition that it follows.
        parked: whether it may be offered to.
        sink: set once the connection is accepted.
        messages: delivered so far.
        bytes_sent: the frames of those.
        fell_behind: how often it had to read a page of the past.
    """

    __slots__ = (
        "_accepted", "_awake", "_closing", "_had", "_memory", "_page_reads", "_scope", "_talk", "_telemetry", "bytes_sent", "cursors",
        "fell_behind", "messages", "parked", "session_id", "sink", "username",
    )  # fmt: skip

    sink: Sink

    def __init__(self, *, session_id: str, username: str, page_reads: PageReads, memory: Memory, telemetry: Telemetry) -> None:
        self.session_id = session_id
        self.username = username
        self.cursors: dict[PartitionKey, Cursor] = {}
        self.parked = False
        self.messages = 0
        self.bytes_sent = 0
        self.fell_behind = 0
        self._accepted = False
        self._had: dict[PartitionKey, int] = {}
        self._page_reads = page_reads
        self._memory = memory
        self._telemetry = telemetry
        self._awake = trio.Event()
        self._closing: Close | None = None
        self._scope: trio.CancelScope | None = None  # of the nursery, while that is open
        self._talk: deque[float] | None = None

    # What the Audience, the fan-out and page reads call: plain functions, at any time.

    def follow(self, log: PartitionLog, position: int, *, afresh: bool = False) -> None:
        """Deliver `log` from `position` on, but nothing that this connection has had, unless the offsets began `afresh`."""
        had = self._had.pop(log.key, 0)
        cursor = Cursor(self, log, position if afresh else max(position, had))
        self.cursors[log.key] = cursor
        log.followers[cursor] = None
        self.wake()

    def unfollow(self, log: PartitionLog) -> None:
        """Deliver nothing more of `log`. No error if it is not followed."""
        cursor = self.cursors.pop(log.key, None)
        if cursor is None:
            return
        del log.followers[cursor]
        if cursor.page is not None:
            cursor.page.leave(self.wake)
        self._had[log.key] = cursor.position
        if len(self._had) > HAD_PARTITIONS:
            del self._had[next(iter(self._had))]

    def wake(self) -> None:
        """Look at the cursors again; until then nothing is offered."""
        self.parked = False
        self._awake.set()

    def end(self, close: Close) -> None:
        """End it with a close frame, which comes after what is owed."""
        self._closing = self._closing or close
        self._stop()

    def abort(self) -> None:
        """End it without a close frame, whatever it waits for."""
        self._stop()
        if self._accepted:
            self.sink.abort()

    def _stop(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    # What its own nursery runs.

    async def run(self, sink: Sink, inbox: Inbox) -> int:
        """Deliver until the client is gone or `end` is called; close the connection with 1011 on a bug of ours.

        Args:
            sink: of an accepted connection.
            inbox: of the same.

        Returns:
            The close code: the client's, or ours.
        """
        self.sink = sink
        self._accepted = True
        code = 1006
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                if self._closing is None:
                    nursery.start_soon(self._pull, nursery.cancel_scope)
                    code = await self._receive(inbox)
                nursery.cancel_scope.cancel()
        except* Exception as bugs:  # noqa: BLE001 - the outer wall of a session: told, answered with 1011, and the neighbours go on
            self._telemetry.session_failed(session_id=self.session_id, error=bugs)
            self._closing = Close(code=1011, reason="an error of the server's; come again")
        finally:
            self.parked = False
        if self._closing is None:
            return code
        await sink.close(self._closing.code, self._closing.reason)
        return self._closing.code

    async def _receive(self, inbox: Inbox) -> int:
        """Drain what the client says until it is gone; return its close code."""
        while True:
            said = await inbox.receive()
            if isinstance(said, Disconnect):
                return said.code
            self._telemetry.client_text_discarded()
            if self._talks_too_much():
                self.end(Close(code=1008, reason=f"over {TALK_FRAMES} messages in {TALK_SECONDS:.0f} s; this service only sends"))

    def _talks_too_much(self) -> bool:
        if self._talk is None:
            self._talk = deque(maxlen=TALK_FRAMES + 1)
        self._talk.append(trio.current_time())
        return len(self._talk) > TALK_FRAMES and self._talk[-1] - self._talk[0] < TALK_SECONDS

    async def _pull(self, scope: trio.CancelScope) -> None:
        """Deliver what is at the cursors; park when there is nothing. Ends, and the session with it, when the sink is closed."""
        while True:
            if self.sink.owed and not await self._flush():
                scope.cancel()
                return
            progress = False
            for cursor in tuple(self.cursors.values()):
                chunk = self._read(cursor)
                if chunk is not None:
                    progress = True
                    if not await self._send(cursor, chunk):
                        scope.cancel()
                        return
            if not progress:  # then there was no checkpoint since the first cursor was looked at
                await self._wait()

    async def _wait(self) -> None:
        """Wait to be woken; meanwhile be offered to, unless a page is awaited."""
        self._awake = trio.Event()
        self.parked = all(cursor.page is None for cursor in self.cursors.values())
        await self._awake.wait()

    async def _send(self, cursor: Cursor, chunk: Chunk) -> bool:
        """Write `chunk`; False where the connection is closed."""
        cursor.position = chunk.next
        if not chunk.messages:
            await trio.lowlevel.checkpoint()
            return True
        self.messages += chunk.messages
        self.bytes_sent += len(chunk.data)
        self._telemetry.delivered(messages=chunk.messages, size=len(chunk.data))
        if not self.sink.offer(chunk.data):
            return await self._flush()
        await trio.lowlevel.checkpoint()
        return True

    async def _flush(self) -> bool:
        with self._memory.owing(self.sink.owed):
            return await self.sink.flush()

    def _read(self, cursor: Cursor) -> Chunk | None:
        """Return what is at `cursor`; None where it has to wait for its head or for a page."""
        if cursor.page is not None:
            if not cursor.page.done:
                return None
            chunk = self._turn_page(cursor)
            if chunk is not None or cursor.page is not None:
                return chunk
        if self.cursors.get(cursor.log.key) is not cursor:
            return None  # unfollowed, or moved to another log, while another cursor's frames were sent
        found = cursor.log.read(cursor.position, ROUND_BYTES)
        if isinstance(found, Chunk):
            return found
        if found is Elsewhere.PAGE:
            self.fell_behind += 1
            cursor.page = self._page_reads.want(cursor.log, cursor.position, self.wake)
        return None

    def _turn_page(self, cursor: Cursor) -> Chunk | None:
        """Take what a page read brought; None where it brought nothing for this position."""
        read = cursor.page
        if read is None or read.gone:
            return None  # a partition that is gone waits for the Audience to hear of it
        cursor.page = None
        if read.lost is not None and cursor.position < read.lost.first_left:
            cursor.position = read.lost.first_left
        if read.page is not None and read.page.first <= cursor.position < read.page.next:
            return read.page.read(cursor.position, ROUND_BYTES)
        return None
