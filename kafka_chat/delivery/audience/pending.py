"""What it takes others to tell before it is fixed where a follower begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...changes import Changes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...chat.partition_key import PartitionKey
    from ..log.partition_log import PartitionLog
    from .offset_queries import Question


class Pending:
    """What one follower waits for.

    Attributes:
        questions: what is asked of each partition; there is none of these objects where there would be none.
        readings: what is read for it, or waited for.
        beyond: the partitions that a broker has told to end before the offset at which it is to begin, or before our log does.
        since: by trio's clock.
        changes: noted whenever there is less of this, or more in `beyond`.
    """

    __slots__ = ("beyond", "changes", "questions", "readings", "since")

    def __init__(self) -> None:
        self.questions: dict[PartitionKey, Question] = {}
        self.readings: list[Reading] = []
        self.beyond: set[PartitionKey] = set()
        self.since = trio.current_time()
        self.changes = Changes()


class Reading:
    """What a task finds out for one follower, until `scope` is cancelled.

    Attributes:
        logs: whose beginnings it finds, and their heads or the offsets that are due; it ends where there are none left.
        find: does it.
    """

    __slots__ = ("find", "logs", "scope")

    def __init__(self, find: Callable[[Reading], Awaitable[None]]) -> None:
        self.logs: dict[PartitionLog, int] = {}
        self.find = find
        self.scope = trio.CancelScope()
