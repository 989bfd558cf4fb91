"""One client that asked for something: where to begin, what to see, or to be told of all that happens."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import partial
from math import inf
from sys import getsizeof
from typing import TYPE_CHECKING

import trio

from ...chat.loss_cause import LossCause
from ...loop_sharing import Turn
from ..audience.offset_queries import LATEST_TIMESTAMP
from ..audience.rewind import last_messages, messages_before
from ..audience.starts import BEYOND_SECONDS, LATEST, AtOffsets, Resumed, Rewind
from ..records.formats import PLAIN, Bound, Format, View
from .live_socket import RESTARTS, Close
from .notice_queue import NoticeQueue
from .notices import End, Gap, Hello, Limits, Notice, Subscribed, Unsubscribed, come_again, control
from .ops import OPS_WAITING, answers_to
from .session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...chat.partition_key import PartitionKey
    from ...chat.resume_cursor import ResumeCursor
    from ...telemetry.metrics import Telemetry
    from ..audience.offset_queries import Question
    from ..audience.starts import Start
    from ..log.follower import LogCursor
    from ..log.memory import Memory
    from ..log.page_reads import PageReads
    from ..log.partition_log import PartitionLog
    from ..ports import SubscriptionChange
    from ..records.batch import Chunk, Mark
    from .context import SessionContext
    from .options import SessionOptions

LOOK_SECONDS = 0.1
# How many offsets one connection may look at that have no message for it, where it has an end to come to: with `until` all of a log
# is read, also where what is older lies at its beginning. Two thousand pages; some ten seconds of one of `pages.readers`.
UNTIL_OFFSETS = 1_000_000

UNTIL_REACHED = Close(code=1000, reason="until is reached")
LOOKED_FAR_ENOUGH = Close(code=1013, reason="until is not reached yet; come again with the cursor, and it goes on from there")


class ResumableSession(Session):
    """Delivers as a `Session` does, but from where its client wants to, what it wants to see, and with notices between.

    A notice is said before the next message, so a gap is told before the first message after it. What a client does not read
    stays small: notices that wait are merged (`NoticeQueue`), and an op is done once the answers to the one before are written.

    Attributes:
        held_bytes: of what its client has asked for, and of ops that wait; counted until `hold_nothing`.
    """

    __slots__ = (
        "_answered",
        "_begins_after",
        "_caught_up",
        "_context",
        "_ends_before",
        "_live",
        "_notices",
        "_ops",
        "_page_reads",
        "_questions",
        "_resume",
        "_rewinds",
        "_said_hello",
        "_shown_nothing",
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
        view = View(format=options.format, tags=options.tags, senders=options.senders)
        view = PLAIN if view == PLAIN else view  # one object for all, which the fan-out knows without comparing
        common = {"session_id": session_id, "username": username}
        super().__init__(**common, page_reads=page_reads, memory=memory, telemetry=telemetry, view=view)
        self.options = replace(options, cursor=None)
        self._begins_after = options.cursor  # until the beginning is fixed: a stranger's cursor may be large
        self.only = options.chats
        self._context = context
        self._page_reads = page_reads
        self._caught_up = caught_up
        cursor = options.cursor
        self.subscriptions_known = max(0, cursor.subscriptions) if cursor is not None and cursor.cluster in (None, context.cluster()) else 0
        self._notices = NoticeQueue()
        self._said_hello = False
        self._live = False
        self._shown_nothing = 0  # offsets that were looked at and had no message for the client
        self._resume = "none" if self._cursor_of_this_cluster() is None else "exact"
        self._rewinds: dict[PartitionKey, tuple[PartitionLog, int]] = {}
        self._ends_before: dict[PartitionKey, int] = {}  # partition -> the last stable offset, where that lies before our position
        self._questions: dict[PartitionKey, dict[int, Question]] = {}  # of each partition, by their times
        self._ops: deque[str | bytes] | None = None  # while there is one, a task answers them
        self.held_bytes = 0
        self._hold(options.held_bytes)
        self._answered: trio.Event | None = None  # set once the answers to the first of them are written

    # What the Audience asks and tells.

    def start(self, topic: str, change: SubscriptionChange | None) -> Start:
        """See `Member.start`."""
        cursor = self._cursor_of_this_cluster()
        begin: Start = Rewind(self.options.rewind) if self.options.rewind else self.options.start
        subscribed = None if change is None or change.offset < 0 else AtOffsets(change.topic_id, change.starts)
        if cursor is None:
            return begin
        entry = cursor.entry(topic)
        if subscribed is None or change is None:
            return begin if entry is None else Resumed(entry, begin)
        if entry is None:
            said_by_record = cursor.complete and change.offset < cursor.subscriptions
            return subscribed if said_by_record or (begin == LATEST and cursor.whole) else begin
        if 0 <= cursor.subscriptions <= change.offset and not self.only:
            return Resumed(entry, subscribed, not_before=subscribed)  # anew, since that cursor
        # What only ids of messages name was subscribed to while its client was here, or came to life then.
        return Resumed(entry, subscribed if cursor.whole and not entry.whole else begin)

    def on_follow(self, cursor: LogCursor) -> None:
        """See `Owner.on_follow`."""
        if self.options.until_ms is not None:
            self._ask(cursor.log.key, LATEST_TIMESTAMP, partial(self._end_at, cursor.log))

    def on_unfollow(self, key: PartitionKey) -> None:
        """See `Owner.on_unfollow`."""
        for question in self._questions.pop(key, {}).values():
            question.withdraw()

    def rewind(self, log: PartitionLog, messages: int) -> None:
        """See `Member.rewind`."""
        self._rewinds[log.key] = log, messages

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
            self._notices.add_subscription(Subscribed(chat=change.chat, exists=exists, positions=change.starts))
            self.follower.wake()

    def on_unsubscribed(self, chat: str, positions: Mapping[int, int]) -> None:
        """See `Member.on_unsubscribed`."""
        if self._takes_notices:
            exists = self._context.audience.exists(chat)
            self._notices.add_subscription(Unsubscribed(chat=chat, exists=exists, positions=positions))
            self.follower.wake()

    def hold_nothing(self) -> None:
        """See `LiveSocket.hold_nothing`."""
        self._hold(-self.held_bytes)

    # What its own nursery runs.

    async def _hear(self, nursery: trio.Nursery, said: str | bytes) -> None:
        if self.options.format is not Format.V1:
            await super()._hear(nursery, said)
        elif self._ops is None or len(self._ops) < OPS_WAITING:
            if self._ops is None:
                self._ops = deque()
                nursery.start_soon(self._answer_ops, self._ops)
            self._ops.append(said)
            self._hold(getsizeof(said))
        else:
            self.end(Close(code=1008, reason=f"over {OPS_WAITING} ops wait for their answers"))

    async def _serve(self, nursery: trio.Nursery) -> None:
        if self.options.heartbeat_seconds is not None:
            nursery.start_soon(self._send_heartbeats, self.options.heartbeat_seconds)
        await self._find_beginnings()
        self._say_hello()
        self._forget_cursor()
        await super()._serve(nursery)

    async def _find_beginnings(self) -> None:
        """Find what takes more than an offset to tell: the messages before the head, and whether the log has lost its end."""
        if self.options.rewind:  # while brokers are away, too: nobody knows yet what there is
            await self._context.audience.wait_started(self, seconds=inf)
        chats: dict[str, list[tuple[PartitionLog, int]]] = {}
        for log, messages in self._rewinds.values():
            chats.setdefault(log.key.topic, []).append((log, messages))
        for of_chat in chats.values():
            await self._rewind_chat([log for log, _ in of_chat], max(messages for _, messages in of_chat))
        self._rewinds.clear()
        deadline = trio.current_time() + BEYOND_SECONDS
        while beyond := [cursor for cursor in self.follower.cursors.values() if cursor.position > cursor.log.head]:
            if trio.current_time() >= deadline:
                self._go_back(beyond)
            await trio.sleep(LOOK_SECONDS)

    async def _rewind_chat(self, logs: Sequence[PartitionLog], messages: int) -> None:
        found: dict[PartitionKey, Sequence[Mark]] = {}
        for log in logs:
            cursor = self.follower.cursors.get(log.key)
            if cursor is not None and cursor.log is log:
                found[log.key] = await messages_before(log, cursor.position, messages, view=self.follower.view, page_reads=self._page_reads)
        for key, last in last_messages(found, messages).items():
            cursor = self.follower.cursors.get(key)
            if last and cursor is not None:
                cursor.position = min(cursor.position, last[0].offset)

    def _go_back(self, beyond: Sequence[LogCursor]) -> None:
        """Move cursors to the last stable offset, once a broker has told that it lies before them."""
        for cursor in beyond:
            told = self._ends_before.pop(cursor.log.key, None)
            if told is None:
                self._ask(cursor.log.key, LATEST_TIMESTAMP, partial(self._ends_before.__setitem__, cursor.log.key))
            elif told < cursor.position:
                self.on_gap(cursor.log.key, cursor.position, told, LossCause.TRUNCATED)
                cursor.position = told

    def _read(self, cursor: LogCursor) -> Chunk | None:
        if self._notices.waits or (self.options.until_ms is not None and not self._before_end(cursor)):
            return None
        chunk = super()._read(cursor)
        if self._notices.waits:
            return None  # turning to a page has told of a gap before it
        if chunk is not None and not chunk.messages:
            self._shown_nothing += chunk.next - cursor.position
        return chunk

    async def _wait(self) -> None:
        if not self._notices.waits and self.options.until_ms is not None and self._all_ended():
            if self.options.format is Format.EVENTS:
                self._offer(End(cursor=self._cursor()))
            self.end(UNTIL_REACHED)
        elif not self._notices.waits and self._looked_far_enough:
            self.end(LOOKED_FAR_ENOUGH)
        elif not self._notices.waits and not self._live and self.options.until_ms is None and self._has_all():
            self._live = True
            self._caught_up()
            if self._takes_notices:
                self._notices.add_live()
        self._forget_cursor()
        if self._notices.waits:
            await self._say_notices()
            return
        await self.follower.wait(parked=self.options.until_ms is None and not self.follower.awaits_page)

    async def _say_notices(self) -> None:
        """Say what waits, no more at a time than the socket takes: what comes meanwhile is merged with what still waits."""
        turn = Turn()
        while self._notices.waits:
            if not self._offer(self._notices.pop(self._cursor)) and not await self._flush():
                self._notices.clear()  # the connection is closed
            await turn.share()
        await self._flush()
        if self._answered is not None:
            self._answered.set()

    async def _take_leave(self, close: Close) -> None:
        """Have a client that is to come back know all that waits, and then up to where it has had everything.

        The audience may still move its cursors and tell of it, until the cursor is made: no gap lies before that untold. A client
        that has had no `hello` begins the next time as it has begun now, and is told the same then.
        """
        if close.code not in (RESTARTS, LOOKED_FAR_ENOUGH.code) or not self._takes_notices:
            return
        if self._said_hello:
            self._notices.add_answers(())  # what the op under way holds back has happened, whatever came of the op itself
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

    async def _answer_ops(self, ops: deque[str | bytes]) -> None:
        while ops:
            self._notices.add_answers(await answers_to(ops[0], session=self, context=self._context, notices=self._notices))
            self._answered = trio.Event()
            self.follower.wake()
            await self._answered.wait()
            self._hold(-getsizeof(ops.popleft()))
        self._ops = self._answered = None

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

    def _ask(self, key: PartitionKey, time_ms: int, told: Callable[[int], None]) -> None:
        """Ask for an offset of a partition that it follows, unless that question still waits; leaving the partition withdraws it."""
        questions = self._questions.setdefault(key, {})
        if time_ms not in questions or not questions[time_ms].open:
            questions[time_ms] = self._context.offsets.put(key, time_ms, told)

    def _offer(self, notice: Notice) -> bool:
        """Write a notice; False where the socket does not take all of it at once, or the connection is closed."""
        return self.sink.offer(control(notice))

    def _has_all(self) -> bool:
        """Whether all that was there has been delivered."""
        return self._context.audience.has_started(self) and all(
            cursor.page is None and cursor.position >= cursor.log.head for cursor in self.follower.cursors.values()
        )

    def _end_at(self, log: PartitionLog, offset: int) -> None:
        """Have a partition end where it ended when that was asked."""
        cursor = self.follower.cursors.get(log.key)
        if cursor is not None and cursor.log is log:
            cursor.bound = Bound(offset, self.options.until_ms)
            self.follower.wake()

    def _before_end(self, cursor: LogCursor) -> bool:
        return not self._looked_far_enough and cursor.bound is not None and cursor.position < cursor.bound.end

    def _all_ended(self) -> bool:
        return self._context.audience.has_started(self) and all(
            cursor.bound is not None and cursor.position >= cursor.bound.end for cursor in self.follower.cursors.values()
        )

    @property
    def _looked_far_enough(self) -> bool:
        """Whether it has found nothing for its client in so many offsets that others come first."""
        return self.options.until_ms is not None and self._shown_nothing >= UNTIL_OFFSETS
