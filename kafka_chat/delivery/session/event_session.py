"""One client of server-sent events: the `id` of each event is its whole cursor."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..audience.cursor_parts import CursorParts
from ..records.formats import MARK
from .resumable_session import ResumableSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...chat.loss_cause import LossCause
    from ...chat.partition_key import PartitionKey
    from ...telemetry.metrics import Telemetry
    from ..log.log_cursor import LogCursor
    from ..log.memory import Memory
    from ..log.page_reads import PageReads
    from ..log.partition_log import PartitionLog
    from ..records.batch import Chunk
    from ..records.formats import View
    from .context import SessionContext
    from .options import SessionOptions

_ID_LINE = re.compile(MARK + rb"[^\n]*\n")


class EventSession(ResumableSession):
    """A `ResumableSession` that writes events.

    The fan-out hands it what is rendered once for all; it puts its own cursor in, whose parts it keeps: only what moves is made
    anew. Whatever moves a cursor in another way than by delivering forgets the parts.
    """

    __slots__ = ("_parts",)

    def __init__(
        self,
        options: SessionOptions,
        context: SessionContext,
        *,
        session_id: str,
        username: str,
        page_reads: PageReads,
        memory: Memory,
        telemetry: Telemetry,
        caught_up: Callable[[], None],
    ) -> None:
        """See `ResumableSession`."""
        self._parts = CursorParts()
        common = {"session_id": session_id, "username": username}
        super().__init__(options, context, **common, page_reads=page_reads, memory=memory, telemetry=telemetry, caught_up=caught_up)

    def take(self, cursor: LogCursor, chunk: Chunk) -> None:
        """See `Follower.take`."""
        cursor.position = chunk.next
        self._parts.move(cursor)
        if chunk.messages and not self._say(chunk.data, chunk.messages):
            self.wake()

    def follow(self, log: PartitionLog, position: int, *, afresh: bool = False) -> None:
        """See `Session.follow`."""
        self._parts.forget()
        super().follow(log, position, afresh=afresh)
        self._parts.move(self.cursors[log.key])  # what is said until new parts can be made must not lie elsewhere

    def unfollow(self, log: PartitionLog) -> None:
        """See `Session.unfollow`."""
        self._parts.forget()
        super().unfollow(log)

    def on_gap(self, key: PartitionKey, first_lost: int, first_left: int, cause: LossCause) -> None:
        """See `Session.on_gap`; a cursor is about to be moved over what is lost."""
        self._parts.forget()
        super().on_gap(key, first_lost, first_left, cause)

    async def _find_beginnings(self) -> None:
        await super()._find_beginnings()
        self._parts.forget()

    async def _send(self, cursor: LogCursor, chunk: Chunk) -> bool:
        cursor.position = chunk.next
        self._parts.move(cursor)
        return await super()._send(cursor, chunk)

    def _say(self, data: bytes, messages: int) -> bool:
        cursor = self._cursor()
        return super()._say(_ID_LINE.sub(b"", data) if cursor is None else data.replace(MARK, b"id: %b." % cursor.encode()), messages)

    def _cursor(self) -> str | None:
        context = self._context
        return context.audience.cursor(self, cluster=context.cluster(), subscriptions=context.subscriptions_read, parts=self._parts)

    def _group_in(self, log: PartitionLog) -> dict[View, dict[LogCursor, None]]:
        return log.takers
