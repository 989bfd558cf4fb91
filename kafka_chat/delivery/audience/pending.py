"""What a follower waits for before it is fixed where it begins."""

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
        questions: partition -> the question about it.
        readings: the reads and waits for it.
        beyond: the partitions that, by a broker's answer, end before the offset where it is to begin, or before our log does.
        since: by trio's clock.
        changes: noted whenever this shrinks, or `beyond` grows.
    """

    __slots__ = ("beyond", "changes", "questions", "readings", "since")

    def __init__(self) -> None:
        self.questions: dict[PartitionKey, Question] = {}
        self.readings: list[Reading] = []
        self.beyond: set[PartitionKey] = set()
        self.since = trio.current_time()
        self.changes = Changes()


class Reading:
    """A task that finds something out for one follower, until `scope` is cancelled.

    Attributes:
        logs: the logs whose beginnings it finds, with their heads or the offsets that are due; it ends when none are left.
        find: does it.
    """

    __slots__ = ("find", "logs", "scope")

    def __init__(self, find: Callable[[Reading], Awaitable[None]]) -> None:
        self.logs: dict[PartitionLog, int] = {}
        self.find = find
        self.scope = trio.CancelScope()
