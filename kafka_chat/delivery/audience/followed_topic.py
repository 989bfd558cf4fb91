"""What is kept of one topic that is followed."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ..log.follower import Follower
    from ..log.partition_log import PartitionLog
    from .walks import Walk
    from .wanted_start import Start


class FollowedTopic:
    """A topic that is followed, whether it exists or not.

    Attributes:
        topic_id: of the topic that is there; "" while there is none.
        logs: partition -> its log.
        followers: who follows it, and where that one begins in what is opened from now on.
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
        self.followers: dict[Follower, Start] = {}
        self.closing: list[PartitionLog] = []
        self.named = 0
        self.pinned = False
        self.existence_known = trio.Event()
        self.walks: list[Walk] = []
        self.version = next(_versions)

    def changed(self) -> None:
        """Take note that the topic or its logs are others now."""
        self.version = next(_versions)

    def has_visited(self, follower: Follower) -> bool:
        """Whether no walk over its followers has yet to come to `follower`."""
        return not any(follower in walk.left for walk in self.walks)

    def has_placed(self, follower: Follower) -> bool:
        """Whether `follower` has a cursor wherever it can be known, and has been told of all that is lost."""
        return self.existence_known.is_set() and self.has_visited(follower)


_versions = count()
