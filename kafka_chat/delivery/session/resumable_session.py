"""A client with options: a start, a filter, or kafka-chat.v1."""

from __future__ import annotations

from dataclasses import replace
from random import uniform
from typing import TYPE_CHECKING, Any

import trio

from ...loop_sharing import Turn
from ..audience.cursor_parts import NONE_KEPT
from ..audience.wanted_start import LATEST, AtOffsets, Resumed
from ..records.formats import Format
from .beginning import Beginning
from .live_socket import EXPIRED, RESTARTS, Close
from .notice_queue import NO_RECORD, NoticeQueue, Unheard
from .notices import Auth, Challenge, Hello, Notice, Subscribed, Unsubscribed, come_again, control, gap_in, limits_told
from .ops import OPS_WAITING, Ops
from .session import Session
from .until import LOOKED_FAR_ENOUGH, Until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...access.identity import Identity
    from ...chat.loss_cause import LossCause
    from ...chat.partition_key import PartitionKey
    from ...chat.resume_cursor import ResumeCursor, TopicOffsets
    from ...chat.subscription_change import SubscriptionChange
    from ..audience.wanted_start import Start, Unresumed
    from ..log.follower import LogCursor
    from ..records.batch import Chunk
    from .context import SessionContext
    from .options import SessionOptions


SHORTEST_SECONDS = 4.0  # that a token lasts to be worth a challenge
CHALLENGE_SECONDS = (15.0, 30.0)  # before the end, drawn for each: tokens that are made in the same second are not renewed in it


class ResumableSession(Session):
    """Delivers like a `Session`, but from the client's start on, through its filter, and with notices in between.

    A notice is sent before the next message, so a gap precedes the first message after it. For a client that does not read,
    little accumulates: pending notices are merged (`NoticeQueue`), and an op starts once the previous answers are written.

    Attributes:
        held_bytes: the memory of its client's options; counted until `hold_nothing`.
    """

    __slots__ = (
        "_beginning", "_caught_up", "_challenge_at", "_live", "_notices", "_ops", "_said_hello", "_until",
        "held_bytes", "kept", "only", "options", "subscriptions_known",
    )  # fmt: skip

    def __init__(self, options: SessionOptions, context: SessionContext, *, username: str, caught_up: Callable[[], None]) -> None:
        """Make a session, which must then join the `Audience`; `session_for` does."""
        super().__init__(context, username=username, view=options.view(options.format))
        self.options = replace(options, cursor=None, came_with="")
        self.only = options.chats
        self.kept: Mapping[str, TopicOffsets] = NONE_KEPT
        self._challenge_at: float | None = None
        self._caught_up = caught_up
        self._beginning = Beginning(self.options, options.cursor, context.cluster.mark)
        self.subscriptions_known = self._beginning.subscriptions_known
        self._notices = Unheard() if options.format is Format.PLAIN else NoticeQueue()
        self._said_hello = False
        self._live = False
        self._until = None if options.until_ms is None else Until(options.until_ms, context.offsets)
        self._ops: Ops | None = None
        self.held_bytes = 0
        self._hold(options.held_bytes)

    # Called by the audience.

    def start(self, topic: str, change: SubscriptionChange | None) -> Start:
        """Return where it begins in a topic."""
        return self._beginning.start(topic, change)

    def on_follow(self, cursor: LogCursor) -> None:
        """Note that a log is followed."""
        if self._until is not None:
            self._until.on_follow(cursor)

    def on_unfollow(self, key: PartitionKey) -> None:
        """Note that a log is no longer followed."""
        if self._until is not None:
            self._until.on_unfollow(key)

    def on_gap(self, key: PartitionKey, first_lost: int, first_left: int, cause: LossCause) -> None:
        """Report a gap: messages that were due are lost."""
        if not self._said_hello:
            self._beginning.note_gap(cause)
        self._notices.add_gap(gap_in(key, self._context.names, first_lost, first_left, cause))
        self.follower.wake()

    def on_subscribed(self, change: SubscriptionChange) -> None:
        """Report that its user has subscribed to a chat."""
        self._keep_no_more(change.chat)
        exists = bool(change.topic_id) or self._context.audience.exists(change.chat)
        self._notices.add_subscription(Subscribed(chat=change.chat, exists=exists, positions=change.starts), change.offset)
        self.follower.wake()

    def on_unsubscribed(self, change: SubscriptionChange, positions: Mapping[int, int]) -> None:
        """Report that its user has unsubscribed from a chat."""
        exists = self._context.audience.exists(change.chat)
        self._notices.add_subscription(Unsubscribed(chat=change.chat, exists=exists, positions=positions), change.offset)
        self.follower.wake()

    def hold_nothing(self) -> None:
        """Stop counting the memory held for it: it has ended."""
        self._hold(-self.held_bytes)
        if self._ops is not None:
            self._ops.close()
            self._ops = None  # which refers back to this session

    def on_denied(self, chat: str, positions: Mapping[int, int], entry: TopicOffsets | None) -> None:
        """Report that it may not read a chat any more, and keep where it was."""
        if entry is not None:
            self.kept = {**self.kept, self._context.names.topic(chat): entry}
            self._hold(entry.held_bytes)
        exists = self._context.audience.exists(chat)
        self._notices.add_subscription(Unsubscribed(chat=chat, exists=exists, positions=positions, cause="denied"), NO_RECORD)
        self.follower.wake()

    def on_allowed(self, chat: str, change: SubscriptionChange | None) -> Start:
        """Report that it may read a chat now; return where it begins there.

        Where it was when it lost the right, or its cursor says so; else where its user subscribed.
        """
        entry = self._keep_no_more(chat)
        starts: Mapping[int, int] = {}
        otherwise: Unresumed = LATEST
        if change is not None and change.offset >= 0 and not self.only:
            starts, otherwise = change.starts, AtOffsets(change.topic_id, change.starts)
        exists = self._context.audience.exists(chat)
        positions = starts if entry is None else entry.offsets
        self._notices.add_subscription(Subscribed(chat=chat, exists=exists, positions=positions, cause="allowed"), NO_RECORD)
        self.follower.wake()
        return otherwise if entry is None else Resumed(entry, otherwise)

    def _keep_no_more(self, chat: str) -> TopicOffsets | None:
        """Forget, and return, where it was in a chat that it might not read."""
        topic = self._context.names.topic(chat)
        entry = self.kept.get(topic)
        if entry is not None:
            self.kept = {kept: offsets for kept, offsets in self.kept.items() if kept != topic}
            self._hold(-entry.held_bytes)
        return entry

    def authorize(self, identity: Identity) -> None:
        """Take another identity, and draw when to ask for the next token."""
        super().authorize(identity)
        self._challenge_at = None
        if self.ends_at is not None and self.options.format is Format.V1:
            left = self.ends_at - trio.current_time()
            # Half of a short time, not at once: a client whose next token is as short, or the same, would be asked without a pause.
            if left >= SHORTEST_SECONDS:
                self._challenge_at = self.ends_at - min(uniform(*CHALLENGE_SECONDS), left / 2)

    @property
    def deadline(self) -> float | None:
        """When to ask for a new token, or to end."""
        return self._challenge_at if self._challenge_at is not None and self._closing is None else super().deadline

    def on_deadline(self) -> None:
        """Ask for a new token, or end."""
        if self._challenge_at is None:
            super().on_deadline()
            return
        self._challenge_at = None
        self._notices.add_challenge(Challenge(expires_in=self.expires_in))
        self.follower.wake()

    @property
    def expires_in(self) -> int:
        """How many whole seconds its token lasts; 0 without one."""
        return 0 if self.ends_at is None else max(0, int(self.ends_at - trio.current_time()))

    # What its own nursery runs.

    async def _hear(self, nursery: trio.Nursery, said: str | bytes) -> None:
        if self.options.format is not Format.V1:
            await super()._hear(nursery, said)
            return
        if self._ops is None:
            self._ops = Ops(self, self._context, self._notices)
        if not self._ops.add(said, nursery):
            self.end(Close(code=1008, reason=f"over {OPS_WAITING} ops wait for their answers"))

    async def _serve(self, nursery: trio.Nursery) -> None:
        if self.options.heartbeat_seconds is not None:
            nursery.start_soon(self._send_heartbeats, self.options.heartbeat_seconds)
        await self._context.audience.wait_readings(self)
        self._said_hello = True
        if self._notices.heard:
            self._notices.add_hello(self._hello())
        self._forget_cursor()
        await super()._serve(nursery)

    def _read(self, cursor: LogCursor) -> Chunk | None:
        if self._notices.waits or (self._until is not None and not self._until.may_read(cursor)):
            return None
        chunk = super()._read(cursor)
        if self._notices.waits:
            return None  # a gap was reported while taking a page
        if chunk is not None and self._until is not None:
            self._until.note(cursor, chunk)
        return chunk

    async def _wait(self) -> None:
        self._forget_cursor()
        if not self._notices.waits:
            self._note_what_is_read()
        if self._notices.waits:
            await self._say_notices()
        else:
            await self.follower.wait(parked=self._until is None and not self.follower.awaits_page)

    def _note_what_is_read(self) -> None:
        """Send `live` or end, since nothing is left to read now."""
        started = self._context.audience.has_started
        if self._until is not None:
            close = self._until.end(self.follower, started=started(self))
            if close is not None:
                self.end(close)
        elif not self._live and started(self) and self.follower.at_heads:
            self._live = True
            self._caught_up()
            self._notices.add_live()

    async def _say_notices(self) -> None:
        """Send pending notices only as fast as the socket takes them, so that later ones are merged with them."""
        turn = Turn()
        while self._notices.waits:
            if not self._offer(self._notices.pop(self._cursor)) and not await self._flush():
                self._notices.clear()  # the connection is closed
            await turn.share()
        if self._ops is not None:
            self._ops.note_written()
        await trio.lowlevel.checkpoint()

    async def _take_leave(self, close: Close) -> None:
        """Send all pending notices, then `reconnect` with the cursor.

        Until the cursor is made, the audience may still move its cursors, and reports each gap, so the cursor is past no unreported
        gap. A client that has had no `hello` will begin again in the same way, and get the same notices then.
        """
        comes_again = close.code in (RESTARTS, LOOKED_FAR_ENOUGH.code) or (close is EXPIRED and self.options.format is Format.EVENTS)
        if not comes_again or not self._notices.heard:
            return
        if self._said_hello:
            self._notices.add_answers((), {})  # send the changes that the unfinished op holds back, since they have happened
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

    def _forget_cursor(self) -> None:
        """Free the client's cursor once its start is fixed."""
        if self._beginning.cursor is not None and self._context.audience.has_started(self):
            self._keep_denied(self._beginning.cursor)
            self._hold(self._context.audience.forget_start(self) - self._beginning.forget())

    def _keep_denied(self, cursor: ResumeCursor) -> None:
        """Keep where the cursor says that the client is in chats that it is subscribed to and may not read now."""
        if self.identity.unlimited or self.identity.is_anonymous or not cursor.is_of(self._context.cluster.mark):
            return
        entries = {topic: cursor.entry(topic) for topic in map(self._context.names.topic, self.denied())}
        self.kept = {topic: entry for topic, entry in entries.items() if entry is not None}
        self._hold(sum(entry.held_bytes for entry in self.kept.values()))

    def _cursor(self) -> str | None:
        return self._context.audience.cursor(self, cluster=self._context.cluster.mark, subscriptions=self._context.subscriptions_read)

    def _hello(self) -> Hello:
        context, beginning = self._context, self._beginning
        return Hello(
            session=self.session_id,
            user=self.username,
            chats=context.audience.chats(self),
            resume=beginning.resume,
            cursor=self._cursor(),
            limits=limits_told(context.limits, self.options.heartbeat_seconds),
            **self._who(),
        )

    def _who(self) -> dict[str, Any]:
        """Return what `hello` says while access is on."""
        if self.identity.unlimited:
            return {}
        if self.identity.is_anonymous:
            return {"user_from": "anonymous", "denied": self.denied()}
        auth = None if self.ends_at is None else Auth(self.expires_in)
        return {"user_from": "token", "denied": self.denied(), "auth": auth}

    def _hold(self, size: int) -> None:
        """Count `size` more bytes; fewer if negative."""
        self.held_bytes += size
        self._context.memory.owe(size)

    def _offer(self, notice: Notice) -> bool:
        """Write a notice; returns False if the socket does not take all of it at once, or the connection is closed."""
        return self.sink.offer(control(notice))
