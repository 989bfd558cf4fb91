"""One client: its cursors, and the nursery that delivers to it until it is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import trio

from ...chat.loss_cause import LossCause
from ..audience.starts import LATEST
from ..log.log_cursor import LogCursor
from ..log.partition_log import NotInMemory, PartitionLog
from ..records.batch import Chunk
from ..records.formats import PLAIN, View
from .live_socket import LiveSocket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...chat.partition_key import PartitionKey
    from ...telemetry.metrics import Telemetry
    from ..audience.starts import Start
    from ..log.memory import Memory
    from ..log.page_reads import PageReads
    from ..ports import SubscriptionChange

ROUND_BYTES = 64 * 1024  # of each partition in turn, so that one chat's history does not starve another's live end
LEFT_PARTITIONS = 1000  # left ones whose position is remembered, in case they are followed again


class Session(LiveSocket):
    """Delivers what is at its cursors, in the order of offsets, once each.

    The `Audience` gives it cursors and takes them away. It is *parked* when all of its cursors are at the head and
    nothing is owed: then, and only then, the fan-out offers it what comes. All else it reads for itself.

    This one asks for nothing: it gets what its user follows, bare, from now on. `ResumableSession` is for the others.

    Attributes:
        cursors: its place in each partition that it follows.
        parked: whether it may be offered to.
        view: what it gets of a message.
        only: the chats that it follows, subscribed or not; none: those of its user.
        subscriptions_known: the offset in the subscriptions topic up to which its client has learned of changes; 0: of none.
    """

    __slots__ = ("_awake", "_left_positions", "_memory", "_page_reads", "cursors", "parked")

    view: View = PLAIN
    only: Sequence[str] = ()
    subscriptions_known: int = 0
    too_much: ClassVar[str] = f"{LiveSocket.too_much}; this service only sends"

    def __init__(self, *, session_id: str, username: str, page_reads: PageReads, memory: Memory, telemetry: Telemetry) -> None:
        super().__init__(session_id=session_id, username=username, telemetry=telemetry)
        self.cursors: dict[PartitionKey, LogCursor] = {}
        self.parked = False
        self._left_positions: dict[PartitionKey, int] = {}
        self._page_reads = page_reads
        self._memory = memory
        self._awake = trio.Event()

    # What the Audience, the fan-out and page reads call: plain functions, at any time.

    def follow(self, log: PartitionLog, position: int, *, afresh: bool = False) -> None:
        """Deliver `log` from `position` on, but nothing that this connection has had, unless the offsets began `afresh`."""
        left_at = self._left_positions.pop(log.key, 0)
        cursor = LogCursor(self, log, position if afresh else max(position, left_at))
        self.cursors[log.key] = cursor
        self._group_in(log).setdefault(self.view, {})[cursor] = None
        self.wake()

    def unfollow(self, log: PartitionLog) -> None:
        """Deliver nothing more of `log`. No error if it is not followed."""
        cursor = self.cursors.pop(log.key, None)
        if cursor is None:
            return
        group = self._group_in(cursor.log)  # another log of this partition, where the one was begun anew
        del group[self.view][cursor]
        if not group[self.view]:
            del group[self.view]
        if cursor.page is not None:
            cursor.page.leave(self.wake)
        self._left_positions[log.key] = cursor.position
        if len(self._left_positions) > LEFT_PARTITIONS:
            del self._left_positions[next(iter(self._left_positions))]

    def wake(self) -> None:
        """Look at the cursors again; until then nothing is offered."""
        self.parked = False
        self._awake.set()

    def take(self, cursor: LogCursor, chunk: Chunk) -> None:
        """Take what begins at `cursor`. Not asked of those whose sinks are offered it."""
        raise NotImplementedError

    def start(self, topic: str, change: SubscriptionChange | None) -> Start:
        """Return where it begins in a topic.

        Args:
            topic: that it follows.
            change: how its user subscribed to it; None where it did not.
        """
        return LATEST

    def rewind(self, log: PartitionLog, messages: int) -> None:
        """Begin so many messages before the cursor that it has just been given. Only who starts by `Rewind` is asked to."""

    def on_gap(self, key: PartitionKey, first_lost: int, first_left: int, cause: LossCause) -> None:
        """Messages that were due are gone. Bare clients are not told: they would not know what it is."""

    def on_subscribed(self, change: SubscriptionChange) -> None:
        """Its user subscribed to a chat."""

    def on_unsubscribed(self, chat: str, positions: Mapping[int, int]) -> None:
        """Its user unsubscribed from a chat, which was delivered up to these positions, a partition each."""

    # What its own nursery runs.

    async def _hear(self, nursery: trio.Nursery, said: str | bytes) -> None:
        self._telemetry.client_text_discarded()

    async def _serve(self, nursery: trio.Nursery) -> None:
        """Deliver what is at the cursors; park when there is nothing."""
        try:
            while not self.sink.owed or await self._flush():
                progress = False
                for cursor in tuple(self.cursors.values()):
                    chunk = self._read(cursor)
                    if chunk is not None:
                        progress = True
                        if not await self._send(cursor, chunk):
                            return
                if not progress:  # then there was no checkpoint since the first cursor was looked at
                    await self._wait()
        finally:
            self.parked = False

    async def _wait(self) -> None:
        """Wait to be woken; meanwhile be offered to, unless a page is awaited."""
        self._awake = trio.Event()
        self.parked = self._may_park()
        await self._awake.wait()

    def _group_in(self, log: PartitionLog) -> dict[View, dict[LogCursor, None]]:
        """Return the followers of `log` to whom the fan-out gives what comes in the same way as to this one."""
        return log.followers

    def _may_park(self) -> bool:
        return all(cursor.page is None for cursor in self.cursors.values())

    async def _send(self, cursor: LogCursor, chunk: Chunk) -> bool:
        """Write `chunk`; False where the connection is closed."""
        cursor.position = chunk.next
        if not chunk.messages:
            await trio.lowlevel.checkpoint()
            return True
        return await self._write(chunk.data, chunk.messages)

    async def _write(self, data: bytes, messages: int) -> bool:
        """Write whole messages; False where the connection is closed."""
        if not self._say(data, messages):
            return await self._flush()
        await trio.lowlevel.checkpoint()
        return True

    def _say(self, data: bytes, messages: int) -> bool:
        """Have the sink take whole messages; False where it owes some of them then."""
        self.messages += messages
        self.bytes_sent += len(data)
        self._telemetry.delivered(messages=messages, size=len(data))
        return self.sink.offer(data)

    async def _flush(self) -> bool:
        with self._memory.owing(self.sink.owed):
            return await self.sink.flush()

    def _read(self, cursor: LogCursor) -> Chunk | None:
        """Return what is at `cursor`; None where it has to wait for its head or for a page."""
        if self.cursors.get(cursor.log.key) is not cursor:
            return None  # unfollowed, or moved to another log, while another cursor's frames were sent
        if cursor.page is not None:
            if not cursor.page.done:
                return None
            chunk = self._turn_page(cursor)
            if chunk is not None or cursor.page is not None:
                return chunk
        found = cursor.log.read(cursor.position, ROUND_BYTES, self.view, bound=cursor.bound)
        if isinstance(found, Chunk):
            return found
        if found is NotInMemory.PAGE:
            self.fell_behind += 1
            cursor.page = self._page_reads.want(cursor.log, cursor.position, self.wake)
        return None

    def _turn_page(self, cursor: LogCursor) -> Chunk | None:
        """Take what a page read brought; None where it brought nothing for this position."""
        read = cursor.page
        if read is None or read.gone:
            return None  # a partition that is gone waits for the Audience to hear of it
        cursor.page = None
        if read.lost is not None and cursor.position < read.lost.first_left:
            self.on_gap(cursor.log.key, cursor.position, read.lost.first_left, LossCause.RETENTION)
            cursor.position = read.lost.first_left
        if read.page is not None and read.page.first <= cursor.position < read.page.next:
            return cursor.log.read_in(read.page, cursor.position, ROUND_BYTES, self.view, bound=cursor.bound)
        return None
