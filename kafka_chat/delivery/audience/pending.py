"""The questions and reads that must end before a follower's start is fixed."""

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
    """The pending questions and reads of one follower.

    Attributes:
        questions: partition -> the question about it.
        readings: its reads and waits.
        beyond: the partitions that, by a broker's answer, end before the start offset or before our log's head.
        since: when this was made; `trio.current_time()`.
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
    """A task that finds a follower's start, until `scope` is cancelled.

    Attributes:
        logs: the logs in which it finds the start, with their heads or the offsets that are due; it ends when none are left.
        find: the function of the task.
    """

    __slots__ = ("find", "logs", "scope")

    def __init__(self, find: Callable[[Reading], Awaitable[None]]) -> None:
        self.logs: dict[PartitionLog, int] = {}
        self.find = find
        self.scope = trio.CancelScope()
