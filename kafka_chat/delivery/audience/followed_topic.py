"""What the audience keeps of a topic, and of a session whose beginning is not fixed."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...chat.partition_key import PartitionKey
    from ..log.partition_log import PartitionLog
    from .member import Member
    from .offset_queries import Question
    from .starts import Start


class FollowedTopic:
    """A topic that is followed, whether it exists or not.

    Attributes:
        topic_id: of the topic that is there; "" while there is none.
        logs: partition -> its log.
        followers: who follows it, and where that session begins in what is opened from now on.
        closing: logs that are no more, in which followers have cursors until their walk has come to them.
        named: how many of those follow it because they name it, subscribed or not.
        pinned: followed also when nobody does.
        existence_known: set once a broker has told whether the topic exists.
        walks: those over its followers that are under way.
        version: another one whenever the topic or its logs are others.
    """

    __slots__ = ("closing", "existence_known", "followers", "logs", "named", "pinned", "topic_id", "version", "walks")

    def __init__(self) -> None:
        self.topic_id = ""
        self.logs: dict[int, PartitionLog] = {}
        self.followers: dict[Member, Start] = {}
        self.closing: list[PartitionLog] = []
        self.named = 0
        self.pinned = False
        self.existence_known = trio.Event()
        self.walks: list[Walk] = []
        self.version = next(_versions)

    def changed(self) -> None:
        """Take note that the topic or its logs are others now."""
        self.version = next(_versions)

    def has_placed(self, session: Member) -> bool:
        """Whether `session` has a cursor wherever it can be known, and has been told of all that is lost."""
        return self.existence_known.is_set() and not any(session in walk.left for walk in self.walks)


class Walk:
    """A walk over a topic's followers, which shares the loop.

    Attributes:
        left: those to whom it has not come.
        done: set when it is over.
    """

    __slots__ = ("done", "left")

    def __init__(self, followers: Iterable[Member]) -> None:
        self.left = set(followers)
        self.done = trio.Event()


class PendingStarts:
    """What it takes a broker to tell before a session's beginning is fixed.

    Attributes:
        questions: what is asked of each partition; there is none of these where there would be none.
        resolved: set when there are no more.
    """

    __slots__ = ("questions", "resolved")

    def __init__(self) -> None:
        self.questions: dict[PartitionKey, Question] = {}
        self.resolved = trio.Event()


_versions = count()
