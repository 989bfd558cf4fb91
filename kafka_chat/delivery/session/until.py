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

# How many offsets one connection may look at that have no message for it, where it has an end to come to: with `until` all of a log
# is read, also where what is older lies at its beginning. Two thousand pages; some ten seconds of one of `pages.readers`.
UNTIL_OFFSETS = 1_000_000

UNTIL_REACHED = Close(code=1000, reason="until is reached")
LOOKED_FAR_ENOUGH = Close(code=1013, reason="until is not reached yet; reconnect with the cursor to continue")


class Until:
    """Each partition is read up to where it ended at the time of the question, because times need not increase with offsets.

    Args:
        before_ms: nothing of this time or later, Unix, in milliseconds.
        offsets: asks where partitions end.
    """

    __slots__ = ("_before_ms", "_offsets", "_questions", "_shown_nothing")

    def __init__(self, before_ms: int, offsets: OffsetQueries) -> None:
        self._before_ms = before_ms
        self._offsets = offsets
        self._questions: dict[PartitionKey, Question] = {}
        self._shown_nothing = 0  # offsets that were looked at and had no message for the client

    def on_follow(self, cursor: LogCursor) -> None:
        """Ask where a partition ends that is followed now."""
        log = cursor.log
        self._questions[log.key] = self._offsets.put(log.key, LATEST_TIMESTAMP, partial(self._end_at, cursor.follower, log))

    def on_unfollow(self, key: PartitionKey) -> None:
        """Ask no longer."""
        question = self._questions.pop(key, None)
        if question is not None:
            question.withdraw()

    def may_read(self, cursor: LogCursor) -> bool:
        """Whether there may be something for the client at a cursor."""
        return not self._looked_far_enough and cursor.bound is not None and cursor.position < cursor.bound.end

    def note(self, cursor: LogCursor, chunk: Chunk) -> None:
        """Take note of what is at a cursor."""
        if not chunk.messages:
            self._shown_nothing += chunk.next - cursor.position

    def end(self, follower: Follower, *, started: bool) -> Close | None:
        """Return how the connection ends now that `follower` has had what it may read; None: it goes on.

        Args:
            follower: whose connection.
            started: it is fixed where it begins in all that it follows.
        """
        if started and all(cursor.bound is not None and cursor.position >= cursor.bound.end for cursor in follower.cursors.values()):
            return UNTIL_REACHED
        return LOOKED_FAR_ENOUGH if self._looked_far_enough else None

    @property
    def _looked_far_enough(self) -> bool:
        """Whether it has read so many offsets without a message for the client that others take precedence."""
        return self._shown_nothing >= UNTIL_OFFSETS

    def _end_at(self, follower: Follower, log: PartitionLog, offset: int) -> None:
        cursor = follower.cursors.get(log.key)
        if cursor is not None and cursor.log is log:
            cursor.bound = Bound(offset, self._before_ms)
            follower.wake()
