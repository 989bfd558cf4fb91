"""One client of server-sent events: the `id` of each event is the whole cursor, unless it is too long for a request header."""

from __future__ import annotations

import re
from random import randint
from typing import TYPE_CHECKING

import msgspec

from ..audience.cursor_parts import CursorParts
from ..records.formats import MARK
from .notices import End, Hello, control_event
from .resumable_session import ResumableSession
from .until import UNTIL_REACHED

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...chat.loss_cause import LossCause
    from ...chat.partition_key import PartitionKey
    from ..log.follower import LogCursor
    from ..records.batch import Chunk
    from .context import SessionContext
    from .live_socket import Close
    from .notices import Notice
    from .options import SessionOptions

# The most for an event's id, which comes back in a header: nginx and others accept 8 KiB of headers, cookies included. They answer
# 400 to longer ones, and then an `EventSource` gives up for good.
ID_BYTES = 4096
_ONE_ID_BYTES = 64  # the most for a message's own id and the dot before it: 31 bytes and three varints in base64
RETRY_MS = (1000, 4000)  # reconnection time, random per client, so that not all come back in the same instant after a restart

_ID_LINE = re.compile(MARK + rb"[^\n]*\n")


class EventSession(ResumableSession):
    """A `ResumableSession` that writes events.

    It gets shared renderings from the fan-out, and inserts its own cursor. It keeps the cursor's parts, and makes only the
    moved ones again. When a cursor moves in any way other than a delivery, it forgets the parts.

    Once an id would exceed `ID_BYTES`, all further events have an empty id, and a `hello` says so: after a disconnect the
    client starts over, or uses another way to resume with the cursor.
    """

    __slots__ = ("_came_with_bytes", "_parts", "_resumable")

    def __init__(self, options: SessionOptions, context: SessionContext, *, username: str, caught_up: Callable[[], None]) -> None:
        """Make a session, which must then join the `Audience`; `session_for` does."""
        super().__init__(options, context, username=username, caught_up=caught_up)
        came_with = options.came_with if self._beginning.resume != "none" and len(options.came_with) <= ID_BYTES else ""
        self._parts = CursorParts(came_with)
        self._came_with_bytes = len(came_with)
        self._hold(self._came_with_bytes)
        self._resumable = True

    def take(self, cursor: LogCursor, chunk: Chunk) -> int:
        """Write `chunk`, or do not, and wake."""
        cursor.position = chunk.next
        data = self._bytes_of(cursor, chunk)
        if not chunk.messages:
            return 0
        self.messages += chunk.messages
        self.bytes_sent += len(data)
        if not self.sink.offer(data):
            self.follower.wake()
        return len(data)

    def on_follow(self, cursor: LogCursor) -> None:
        """Note that a log is followed."""
        self._parts.forget()
        super().on_follow(cursor)
        self._parts.move(cursor)  # stale parts, used until new ones can be made, must have this position

    def on_unfollow(self, key: PartitionKey) -> None:
        """Note that a log is no longer followed."""
        self._parts.forget()
        super().on_unfollow(key)

    def on_gap(self, key: PartitionKey, first_lost: int, first_left: int, cause: LossCause) -> None:
        """Report a gap, and forget the parts: a cursor is about to move past the lost messages."""
        self._parts.forget()
        super().on_gap(key, first_lost, first_left, cause)

    def _bytes_of(self, cursor: LogCursor, chunk: Chunk) -> bytes:
        self._parts.move(cursor)
        if not chunk.messages:
            return b""
        cursor_text = self._cursor() if self._resumable else None
        if cursor_text is not None and self._may_have(len(cursor_text) + _last_id_bytes(chunk.data)):
            return chunk.data.replace(MARK, b"id: %b." % cursor_text.encode())
        return _ID_LINE.sub(b"" if self._resumable else b"id:\n", chunk.data)

    def _forget_cursor(self) -> None:
        super()._forget_cursor()
        if self._came_with_bytes and not self._parts.continues:
            self._hold(-self._came_with_bytes)
            self._came_with_bytes = 0

    async def _take_leave(self, close: Close) -> None:
        if close is UNTIL_REACHED:
            self._offer(End(cursor=self._cursor()))
        await super()._take_leave(close)

    def _offer(self, notice: Notice) -> bool:
        with_id = self._may_have(len(getattr(notice, "cursor", None) or ""))
        retry_ms = randint(*RETRY_MS) if isinstance(notice, Hello) else None
        return self.sink.offer(control_event(notice, with_id=with_id, retry_ms=retry_ms))

    def _hello(self) -> Hello:
        hello = super()._hello()
        self._resumable = self._resumable and len(hello.cursor or "") <= ID_BYTES
        return msgspec.structs.replace(hello, resumable=self._resumable)

    def _may_have(self, id_bytes: int) -> bool:
        """Return whether an event may have an id of this size; after the first one that is too long there are no ids."""
        if self._resumable and id_bytes > ID_BYTES:
            self._resumable = False
            # Its position is after the message that is written next, so it has no cursor, and the client keeps its last one.
            self._offer(msgspec.structs.replace(self._hello(), cursor=None))
        return self._resumable

    def _cursor(self) -> str | None:
        context, parts = self._context, self._parts
        text = context.audience.cursor(self, cluster=context.cluster.mark, subscriptions=context.subscriptions_read, parts=parts)
        # A continued cursor may be too long for a while; events have no id until a shorter one can be made.
        return None if text is not None and parts.continues and len(text) > ID_BYTES - _ONE_ID_BYTES else text


def _last_id_bytes(data: bytes) -> int:
    """Return the length of the last id in rendered events, with the dot before it; it is the longest, since offsets grow."""
    begin = data.rfind(MARK)
    return data.find(b"\n", begin) - begin
