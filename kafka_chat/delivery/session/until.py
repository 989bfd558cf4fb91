"""Ends a connection whose client wants only messages older than a time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..audience.offset_queries import LATEST_TIMESTAMP
from ..records.formats import Bound
from .live_socket import Close

if TYPE_CHECKING:
    from ...chat.partition_key import PartitionKey
    from ..audience.offset_queries import OffsetQueries, Question
    from ..log.follower import Follower, LogCursor
    from ..log.partition_log import PartitionLog
    from ..records.batch import Chunk

# How many offsets without a message for it one connection may read: with `until` a log is read to its end, even if all matching
# messages are at its start. Two thousand pages; about ten seconds of one of `pages.readers`.
UNTIL_OFFSETS = 1_000_000

UNTIL_REACHED = Close(code=1000, reason="until is reached")
LOOKED_FAR_ENOUGH = Close(code=1013, reason="until is not reached yet; reconnect with the cursor to continue")


class Until:
    """Reads each partition up to its end at the time of the request, because timestamps need not increase with offsets.

    Args:
        before_ms: nothing of this time or later; Unix, in milliseconds.
        offsets: asks brokers where partitions end.
    """

    __slots__ = ("_before_ms", "_offsets", "_questions", "_shown_nothing")

    def __init__(self, before_ms: int, offsets: OffsetQueries) -> None:
        self._before_ms = before_ms
        self._offsets = offsets
        self._questions: dict[PartitionKey, Question] = {}
        self._shown_nothing = 0  # offsets read without a message for the client

    def on_follow(self, cursor: LogCursor) -> None:
        """Ask for the end of a newly followed partition."""
        log = cursor.log
        self._questions[log.key] = self._offsets.put(log.key, LATEST_TIMESTAMP, partial(self._end_at, cursor.follower, log))

    def on_unfollow(self, key: PartitionKey) -> None:
        """Withdraw the question."""
        question = self._questions.pop(key, None)
        if question is not None:
            question.withdraw()

    def may_read(self, cursor: LogCursor) -> bool:
        """Whether the client may read at a cursor: its end is known, and not reached."""
        return not self._looked_far_enough and cursor.bound is not None and cursor.position < cursor.bound.end

    def note(self, cursor: LogCursor, chunk: Chunk) -> None:
        """Count the offsets of a chunk without messages."""
        if not chunk.messages:
            self._shown_nothing += chunk.next - cursor.position

    def end(self, follower: Follower, *, started: bool) -> Close | None:
        """Return how the connection ends if `follower` has read everything it may; None if it goes on.

        Args:
            follower: the connection's follower.
            started: whether its start offsets are fixed in everything it follows.
        """
        if started and all(cursor.bound is not None and cursor.position >= cursor.bound.end for cursor in follower.cursors.values()):
            return UNTIL_REACHED
        return LOOKED_FAR_ENOUGH if self._looked_far_enough else None

    @property
    def _looked_far_enough(self) -> bool:
        """Whether it has read the most offsets without a message for the client."""
        return self._shown_nothing >= UNTIL_OFFSETS

    def _end_at(self, follower: Follower, log: PartitionLog, offset: int) -> None:
        cursor = follower.cursors.get(log.key)
        if cursor is not None and cursor.log is log:
            cursor.bound = Bound(offset, self._before_ms)
            follower.wake()
