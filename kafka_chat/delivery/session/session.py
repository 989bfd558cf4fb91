"""Delivers to one client, until it is gone, the chats that it follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import trio

from ...access.rights import Action
from ..audience.cursor_parts import NONE_KEPT
from ..audience.wanted_start import LATEST
from ..log.follower import Follower
from ..records.formats import PLAIN, View
from .live_socket import LiveSocket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...chat.loss_cause import LossCause
    from ...chat.partition_key import PartitionKey
    from ...chat.resume_cursor import TopicOffsets
    from ...chat.subscription_change import SubscriptionChange
    from ..audience.wanted_start import Start
    from ..log.follower import LogCursor
    from ..records.batch import Chunk
    from .context import SessionContext


class Session(LiveSocket):
    """Delivers the messages at its follower's cursors.

    Its follower is parked when all cursors are at the heads and nothing is owed.

    This class is for a client without options: the user's chats, in the bare format, from now on. All others have a
    `ResumableSession`.

    Attributes:
        follower: its cursors in the logs.
        only: the chats it follows, subscribed or not; empty: those of its user.
        kept: topic -> where its client is in a chat that it may not read now, from its cursor.
        subscriptions_known: the offset in the subscriptions topic up to which its client has learned of changes; 0: of none.
    """

    __slots__ = ("_context", "follower")

    only: Sequence[str] = ()
    kept: Mapping[str, TopicOffsets] = NONE_KEPT
    subscriptions_known: int = 0
    too_much: ClassVar[str] = f"{LiveSocket.too_much}; this service only sends"

    def __init__(self, context: SessionContext, *, username: str, view: View = PLAIN) -> None:
        super().__init__(username=username, telemetry=context.telemetry)
        self.follower = Follower(self, view, context.page_reads)
        self._context = context

    @property
    def fell_behind(self) -> int:
        """How often it had to wait for a page read."""
        return self.follower.fell_behind

    # Called by the audience, at any time: plain functions.

    @property
    def subscriber(self) -> str | None:
        """The user whose subscription changes it follows; None if it names its chats, or has no token."""
        return None if self.only or self.identity.is_anonymous else self.username

    def chats(self) -> Mapping[str, SubscriptionChange | None]:
        """Return the chats that it follows, with their subscriptions: those that it may read."""
        asked = self._asked_chats()
        return asked if self.identity.unlimited else {chat: change for chat, change in asked.items() if self.may_follow(chat)}

    def denied(self) -> list[str]:
        """Return the chats that it would follow if it might read them, sorted."""
        return [] if self.identity.unlimited else sorted(chat for chat in self._asked_chats() if not self.may_follow(chat))

    def may_follow(self, chat: str) -> bool:
        """Return whether it may read a chat."""
        return self.identity.may(Action.READ, chat)

    def _asked_chats(self) -> Mapping[str, SubscriptionChange | None]:
        changes = self._context.chats_of("" if self.identity.is_anonymous else self.username)  # nobody is called ""
        return {chat: changes.get(chat) for chat in self.only} if self.only else changes

    def start(self, topic: str, change: SubscriptionChange | None) -> Start:
        """Return where it begins in a topic."""
        return LATEST

    def on_subscribed(self, change: SubscriptionChange) -> None:
        """Do nothing: bare clients get no notices."""

    def on_unsubscribed(self, change: SubscriptionChange, positions: Mapping[int, int]) -> None:
        """Do nothing: bare clients get no notices."""

    # Called by its follower.

    def take(self, cursor: LogCursor, chunk: Chunk) -> int:
        """Write `chunk`, or do not, and wake."""
        cursor.position = chunk.next
        if not chunk.messages:
            return 0
        size = len(chunk.data)
        self.messages += chunk.messages
        self.bytes_sent += size
        if not self.sink.offer(chunk.data):
            self.follower.wake()
        return size

    def on_gap(self, key: PartitionKey, first_lost: int, first_left: int, cause: LossCause) -> None:
        """Do nothing: bare clients get no notices."""

    def on_follow(self, cursor: LogCursor) -> None:
        """Note that a log is followed."""

    def on_unfollow(self, key: PartitionKey) -> None:
        """Note that a log is no longer followed."""

    # Run in its own nursery.

    async def _hear(self, nursery: trio.Nursery, said: str | bytes) -> None:
        self._telemetry.client_text_discarded()

    async def _serve(self, nursery: trio.Nursery) -> None:
        """Deliver the messages at the cursors; park when there are none."""
        while not self.sink.owed or await self._flush():
            progress = False
            for cursor in tuple(self.follower.cursors.values()):
                chunk = self._read(cursor)
                if chunk is not None:
                    progress = True
                    if not await self._send(cursor, chunk):
                        return
            if not progress:  # then there was no checkpoint since the first cursor was read
                await self._wait()

    def _read(self, cursor: LogCursor) -> Chunk | None:
        """Return the messages at `cursor` to send now, or None."""
        return self.follower.read(cursor)

    async def _wait(self) -> None:
        """Wait to be woken; accept offers meanwhile, unless waiting for a page."""
        await self.follower.wait(parked=not self.follower.awaits_page)

    async def _send(self, cursor: LogCursor, chunk: Chunk) -> bool:
        """Write `chunk`; returns False if the connection is closed."""
        cursor.position = chunk.next
        data = self._bytes_of(cursor, chunk)
        if chunk.messages:
            self.messages += chunk.messages
            self.bytes_sent += len(data)
            self._telemetry.delivered(messages=chunk.messages, size=len(data))
            if not self.sink.offer(data):
                return await self._flush()
        await trio.lowlevel.checkpoint()
        return True

    def _bytes_of(self, cursor: LogCursor, chunk: Chunk) -> bytes:
        """Return the bytes to write for `chunk`, after `cursor` has moved past it."""
        return chunk.data

    async def _flush(self) -> bool:
        with self._context.memory.owing(self.sink.owed):
            return await self.sink.flush()
