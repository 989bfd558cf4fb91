"""One client that asked for something: where to begin, what to see, or to be told of all that happens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from ...chat.loss_cause import LossCause
from ...loop_sharing import Turn
from ..records.formats import Format
from .beginning import beginning_in
from .live_socket import RESTARTS, Close
from .notice_queue import NoticeQueue
from .notices import End, Gap, Hello, Limits, Notice, Subscribed, Unsubscribed, come_again, control
from .ops import OPS_WAITING, Ops
from .session import Session
from .until import Until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...chat.partition_key import PartitionKey
    from ...chat.resume_cursor import ResumeCursor
    from ...telemetry.metrics import Telemetry
    from ..audience.wanted_start import Start
    from ..log.follower import LogCursor
    from ..log.memory import Memory
    from ..log.page_reads import PageReads
    from ..ports import SubscriptionChange
    from ..records.batch import Chunk
    from .context import SessionContext
    from .options import SessionOptions

UNTIL_REACHED = Close(code=1000, reason="until is reached")
LOOKED_FAR_ENOUGH = Close(code=1013, reason="until is not reached yet; come again with the cursor, and it goes on from there")


class ResumableSession(Session):
    """Delivers as a `Session` does, but from where its client wants to, what it wants to see, and with notices between.

    A notice is said before the next message, so a gap is told before the first message after it. What a client does not read
    stays small: notices that wait are merged (`NoticeQueue`), and an op is done once the answers to the one before are written.

    Attributes:
        held_bytes: of what its client has asked for; counted until `hold_nothing`.
    """

    __slots__ = (
        "_begins_after",
        "_caught_up",
        "_context",
        "_live",
        "_notices",
        "_ops",
        "_resume",
        "_said_hello",
        "_until",
        "held_bytes",
        "only",
        "options",
        "subscriptions_known",
    )  # fmt: skip

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
        """Make one that the `Audience` is to let in.

        Args:
            options: what its client asked for.
            context: the service.
            session_id: for the operator's eyes.
            username: whose it is.
            page_reads: reads what memory does not have.
            memory: what sockets are owed counts there.
            telemetry: the service's.
            caught_up: is called once when it has delivered all that was there.
        """
        common = {"session_id": session_id, "username": username}
        super().__init__(**common, page_reads=page_reads, memory=memory, telemetry=telemetry, view=options.view(options.format))
        self.options = replace(options, cursor=None)
        self._begins_after = options.cursor  # until the beginning is fixed: a stranger's cursor may be large
        self.only = options.chats
        self._context = context
        self._caught_up = caught_up
        cursor = options.cursor
        self.subscriptions_known = max(0, cursor.subscriptions) if cursor is not None and cursor.cluster in (None, context.cluster()) else 0
        self._notices = NoticeQueue()
        self._said_hello = False
        self._live = False
        self._resume = "none" if self._cursor_of_this_cluster() is None else "exact"
        self._until = None if options.until_ms is None else Until(options.until_ms, context.offsets)
        self._ops: Ops | None = None
        self.held_bytes = 0
        self._hold(options.held_bytes)

    # What the Audience asks and tells.

    def start(self, topic: str, change: SubscriptionChange | None) -> Start:
        """See `Member.start`."""
        return beginning_in(topic, self.options, self._cursor_of_this_cluster(), change)

    def on_follow(self, cursor: LogCursor) -> None:
        """See `Owner.on_follow`."""
        if self._until is not None:
            self._until.on_follow(cursor)

    def on_unfollow(self, key: PartitionKey) -> None:
        """See `Owner.on_unfollow`."""
        if self._until is not None:
            self._until.on_unfollow(key)

    def on_gap(self, key: PartitionKey, first_lost: int, first_left: int, cause: LossCause) -> None:
        """See `Owner.on_gap`."""
        if not self._said_hello and self._resume != "none":
            self._resume = "future" if cause is LossCause.TRUNCATED else "gap"
        if self._takes_notices:
            chat = self._context.names.chat(key.topic)
            self._notices.add_gap(Gap(chat=chat, partition=key.partition, first_lost=first_lost, first_left=first_left, cause=cause))
            self.follower.wake()

    def on_subscribed(self, change: SubscriptionChange) -> None:
        """See `Member.on_subscribed`."""
        if self._takes_notices:
            exists = bool(change.topic_id) or self._context.audience.exists(change.chat)
            self._notices.add_subscription(Subscribed(chat=change.chat, exists=exists, positions=change.starts), change.offset)
            self.follower.wake()

    def on_unsubscribed(self, change: SubscriptionChange, positions: Mapping[int, int]) -> None:
        """See `Member.on_unsubscribed`."""
        if self._takes_notices:
            exists = self._context.audience.exists(change.chat)
            self._notices.add_subscription(Unsubscribed(chat=change.chat, exists=exists, positions=positions), change.offset)
            self.follower.wake()

    def hold_nothing(self) -> None:
        """See `LiveSocket.hold_nothing`."""
        self._hold(-self.held_bytes)
        if self._ops is not None:
            self._ops.close()
            self._ops = None  # which has us

    # What its own nursery runs.

    async def _hear(self, nursery: trio.Nursery, said: str | bytes) -> None:
        if self.options.format is not Format.V1:
            await super()._hear(nursery, said)
            return
        if self._ops is None:
            self._ops = Ops(self, self._context, self._notices, self._memory)
        if not self._ops.add(said, nursery):
            self.end(Close(code=1008, reason=f"over {OPS_WAITING} ops wait for their answers"))

    async def _serve(self, nursery: trio.Nursery) -> None:
        if self.options.heartbeat_seconds is not None:
            nursery.start_soon(self._send_heartbeats, self.options.heartbeat_seconds)
        await self._context.audience.wait_readings(self)
        self._say_hello()
        self._forget_cursor()
        await super()._serve(nursery)

    def _read(self, cursor: LogCursor) -> Chunk | None:
        if self._notices.waits or (self._until is not None and not self._until.may_read(cursor)):
            return None
        chunk = super()._read(cursor)
        if self._notices.waits:
            return None  # turning to a page has told of a gap before it
        if chunk is not None and self._until is not None:
            self._until.note(cursor, chunk)
        return chunk

    async def _wait(self) -> None:
        self._forget_cursor()
        if not self._notices.waits:
            if self._until is not None:
                self._end_at_until(self._until)
            elif not self._live and self._has_all():
                self._live = True
                self._caught_up()
                if self._takes_notices:
                    self._notices.add_live()
        if self._notices.waits:
            await self._say_notices()
        else:
            await self.follower.wait(parked=self._until is None and not self.follower.awaits_page)

    def _end_at_until(self, until: Until) -> None:
        if self._context.audience.has_started(self) and until.is_reached(self.follower):
            if self.options.format is Format.EVENTS:
                self._offer(End(cursor=self._cursor()))
            self.end(UNTIL_REACHED)
        elif until.looked_far_enough:
            self.end(LOOKED_FAR_ENOUGH)

    async def _say_notices(self) -> None:
        """Say what waits, no more at a time than the socket takes: what comes meanwhile is merged with what still waits."""
        turn = Turn()
        while self._notices.waits:
            if not self._offer(self._notices.pop(self._cursor)) and not await self._flush():
                self._notices.clear()  # the connection is closed
            await turn.share()
        written = None if self._ops is None else self._ops.being_written()  # answers to a later op may come while what is owed is written
        await self._flush()
        if written is not None:
            written()

    async def _take_leave(self, close: Close) -> None:
        """Have a client that is to come back know all that waits, and then up to where it has had everything.

        The audience may still move its cursors and tell of it, until the cursor is made: no gap lies before that untold. A client
        that has had no `hello` begins the next time as it has begun now, and is told the same then.
        """
        if close.code not in (RESTARTS, LOOKED_FAR_ENOUGH.code) or not self._takes_notices:
            return
        if self._said_hello:
            self._notices.add_answers((), {})  # what the op under way holds back has happened, whatever came of the op itself
        else:
            self._notices.clear()
        turn = Turn()
        while self._notices.waits:
            self._offer(self._notices.pop(self._cursor))
            await turn.share()
        self._offer(come_again(self._cursor() if self._said_hello else None))

    async def _send_heartbeats(self, seconds: float) -> None:
        while True:
            await trio.sleep(seconds)
            self._notices.add_heartbeat()
            self.follower.wake()

    # Inside

    def _cursor_of_this_cluster(self) -> ResumeCursor | None:
        cursor = self._begins_after
        return cursor if cursor is not None and not cursor.says_nothing and cursor.is_of(self._context.cluster()) else None

    def _forget_cursor(self) -> None:
        """Free the cursor that the client came with, once it is fixed where it begins."""
        if self._begins_after is not None and self._context.audience.has_started(self):
            whole, self._begins_after = self._begins_after.held_bytes, None
            self._hold(self._context.audience.forget_start(self) - whole)

    def _cursor(self) -> str | None:
        context = self._context
        return context.audience.cursor(self, cluster=context.cluster(), subscriptions=context.subscriptions_read)

    def _say_hello(self) -> None:
        self._said_hello = True
        if self._takes_notices:
            self._notices.add_hello(self._hello())

    def _hello(self) -> Hello:
        limits = self._context.limits
        told = Limits(limits.message_bytes, limits.client_message_bytes, limits.chats_per_user, self.options.heartbeat_seconds)
        chats = self._context.audience.chats(self)
        return Hello(session=self.session_id, user=self.username, chats=chats, resume=self._resume, cursor=self._cursor(), limits=told)

    def _hold(self, size: int) -> None:
        """Count so many bytes more, or less."""
        self.held_bytes += size
        self._memory.owe(size)

    @property
    def _takes_notices(self) -> bool:
        """Whether its client understands notices. Bare clients hear nothing: they would not know what it is."""
        return self.options.format is not Format.PLAIN

    def _offer(self, notice: Notice) -> bool:
        """Write a notice; False where the socket does not take all of it at once, or the connection is closed."""
        return self.sink.offer(control(notice))

    def _has_all(self) -> bool:
        """Whether all that was there has been delivered."""
        return self._context.audience.has_started(self) and all(
            cursor.page is None and cursor.position >= cursor.log.head for cursor in self.follower.cursors.values()
        )
