"""One reader of logs: at each cursor it gets offers of new messages, or reads by itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import trio

from ...chat.loss_cause import LossCause
from ..records.batch import Chunk
from .partition_log import NotInMemory

if TYPE_CHECKING:
    from ...chat.partition_key import PartitionKey
    from ..records.formats import Bound, View
    from .page_reads import PageRead, PageReads
    from .partition_log import PartitionLog

ROUND_BYTES = 64 * 1024  # bytes read of each partition in turn, so that one chat's history does not starve another's live end
LEFT_PARTITIONS = 1000  # unfollowed logs whose positions are remembered, in case they are followed again


class LogCursor:
    """A follower's cursor in one log.

    Attributes:
        follower: its follower.
        log: its log.
        position: the next offset to read.
        page: the page read that it waits for.
        bound: where it ends; None: nowhere, or not known yet.
    """

    __slots__ = ("bound", "follower", "log", "page", "position")

    def __init__(self, follower: Follower, log: PartitionLog, position: int) -> None:
        self.follower = follower
        self.log = log
        self.position = position
        self.page: PageRead | None = None
        self.bound: Bound | None = None

    @property
    def epoch(self) -> int:
        """The leader epoch of the record before its position, or a later one of this log; `NO_EPOCH` if unknown."""
        return self.log.epochs.before(self.position)


class Owner(Protocol):
    """The owner of a follower. These are plain functions, called at any time."""

    def take(self, cursor: LogCursor, chunk: Chunk) -> int:
        """Write `chunk`, which begins at `cursor`, and move the cursor past it; or do not, and wake the follower.

        Called only while the follower is parked.

        Returns:
            How many bytes of it were written.
        """

    def on_gap(self, key: PartitionKey, first_lost: int, first_left: int, cause: LossCause) -> None:
        """Note that messages that were due are lost. The cursor moves past them afterwards."""

    def on_follow(self, cursor: LogCursor) -> None:
        """Note that a log is followed from this cursor on."""

    def on_unfollow(self, key: PartitionKey) -> None:
        """Note that a log is no longer followed."""


class Follower:
    """Reads logs in offset order, each message once.

    The `Audience` adds and removes its cursors. It is *parked* while its owner waits and has read everything available: only then
    does the fan-out offer it new messages. Its owner reads everything else.

    Args:
        owner: its owner, until `leave`.
        view: the format, and which messages.
        page_reads: read what is not in memory.

    Attributes:
        view: the format, and which messages.
        page_reads: read what is not in memory.
        cursors: one for each partition it follows.
        parked: whether the fan-out may offer it messages.
        offer: the owner's `take` itself, since it is called for each message and client; only while parked.
        fell_behind: how often it had to read a page of the past.
        joined_ms: when it was made, Unix milliseconds.
    """

    __slots__ = ("_awake", "_left_positions", "_owner", "cursors", "fell_behind", "joined_ms", "offer", "page_reads", "parked", "view")

    def __init__(self, owner: Owner, view: View, page_reads: PageReads) -> None:
        self.view = view
        self.cursors: dict[PartitionKey, LogCursor] = {}
        self.parked = False
        self.fell_behind = 0
        self.joined_ms = time.time_ns() // 1_000_000
        self.offer = owner.take
        self._owner = owner
        self.page_reads = page_reads
        self._left_positions: dict[PartitionKey, int] = {}
        self._awake = trio.Event()

    # Called by the audience, the fan-out and page reads, at any time: plain functions.

    def follow(self, log: PartitionLog, position: int, *, afresh: bool = False) -> None:
        """Read `log` from `position` on, but skip what was read before, unless the offsets start `afresh`."""
        left_at = self._left_positions.pop(log.key, 0)
        cursor = LogCursor(self, log, position if afresh else max(position, left_at))
        self.cursors[log.key] = cursor
        log.followers.setdefault(self.view, {})[cursor] = None
        self._owner.on_follow(cursor)
        self.wake()

    def unfollow(self, log: PartitionLog) -> None:
        """Stop reading `log`. No error if it is not followed."""
        self._owner.on_unfollow(log.key)
        cursor = self.cursors.pop(log.key, None)
        if cursor is None:
            return
        group = cursor.log.followers  # possibly another log of this partition, if it started over
        del group[self.view][cursor]
        if not group[self.view]:
            del group[self.view]
        if cursor.page is not None:
            cursor.page.leave(self.wake)
        self._left_positions[log.key] = cursor.position
        if len(self._left_positions) > LEFT_PARTITIONS:
            del self._left_positions[next(iter(self._left_positions))]

    def on_gap(self, key: PartitionKey, first_lost: int, first_left: int, cause: LossCause) -> None:
        """Report a gap: messages that were due are lost."""
        self._owner.on_gap(key, first_lost, first_left, cause)

    def wake(self) -> None:
        """Wake the owner to look at the cursors again; until then nothing is offered."""
        self.parked = False
        self._awake.set()

    def leave(self) -> None:
        """Release the owner: it follows nothing any more."""
        del self._owner, self.offer

    # Called by its owner.

    async def wait(self, *, parked: bool) -> None:
        """Wait to be woken.

        Args:
            parked: whether to get offers of new messages meanwhile.
        """
        self._awake = trio.Event()  # not `Changes`: only one task waits, and it takes 56 bytes less per socket
        self.parked = parked
        try:
            await self._awake.wait()
        finally:
            self.parked = False

    @property
    def awaits_page(self) -> bool:
        """Whether a cursor waits for a page read."""
        return any(cursor.page is not None for cursor in self.cursors.values())

    @property
    def at_heads(self) -> bool:
        """Whether it has read everything in its logs."""
        return all(cursor.page is None and cursor.position >= cursor.log.head for cursor in self.cursors.values())

    def read(self, cursor: LogCursor) -> Chunk | None:
        """Return the messages at `cursor`; None if it must wait for the head or for a page read, which will wake it."""
        if self.cursors.get(cursor.log.key) is not cursor:
            return None  # meanwhile unfollowed, or moved to another log
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
            cursor.page = self.page_reads.want(cursor.log, cursor.position, self.wake)
        return None

    def _turn_page(self, cursor: LogCursor) -> Chunk | None:
        """Return the messages of the page that was read; None if it has none for this position."""
        read = cursor.page
        if read is None or read.gone:
            return None  # the partition is gone, as the Audience will notice
        cursor.page = None
        if read.lost is not None and cursor.position < read.lost.first_left:
            self.on_gap(cursor.log.key, cursor.position, read.lost.first_left, LossCause.RETENTION)
            cursor.position = read.lost.first_left
        if read.page is not None and read.page.first <= cursor.position < read.page.next:
            return cursor.log.read_in(read.page, cursor.position, ROUND_BYTES, self.view, bound=cursor.bound)
        return None
