"""What the audience keeps of a topic, and of a session whose beginning is not fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
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
        pinned: followed also when nobody does.
        existence_known: set once a broker has told whether the topic exists.
    """

    __slots__ = ("existence_known", "followers", "logs", "pinned", "topic_id")

    def __init__(self) -> None:
        self.topic_id = ""
        self.logs: dict[int, PartitionLog] = {}
        self.followers: dict[Member, Start] = {}
        self.pinned = False
        self.existence_known = trio.Event()


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
