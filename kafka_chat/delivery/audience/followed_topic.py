"""The state of one followed topic."""

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
        topic_id: the topic's id; "" while it does not exist.
        logs: partition -> its log.
        followers: follower -> where it begins in partitions that are opened from now on.
        closing: closed logs in which followers have cursors until the walk reaches them.
        named: how many followers follow it by name, subscribed or not.
        pinned: followed also when nobody does.
        existence_known: set once a broker has told whether the topic exists.
        walks: the walks over its followers that are under way.
        version: changes whenever the topic or its logs change.
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
        """Note that the topic or its logs have changed."""
        self.version = next(_versions)

    def has_visited(self, follower: Follower) -> bool:
        """Whether every walk over its followers has reached `follower`."""
        return not any(follower in walk.left for walk in self.walks)

    def has_placed(self, follower: Follower) -> bool:
        """Whether `follower` has a cursor wherever one is known, and has heard of every loss."""
        return self.existence_known.is_set() and self.has_visited(follower)


_versions = count()
