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
    """A followed topic, whether it exists or not.

    Attributes:
        topic_id: the topic's id; "" while it does not exist.
        logs: partition -> its log.
        followers: follower -> its start in partitions that are opened from now on.
        closing: closed logs in which followers have cursors until a walk reaches them.
        named: how many followers follow it by name, subscribed or not.
        pinned: followed even without followers.
        existence_known: set once it is known whether the topic exists.
        walks: the current walks over its followers.
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
        """Whether `follower` has all cursors whose positions are known, and has been notified of every loss."""
        return self.existence_known.is_set() and self.has_visited(follower)


_versions = count()
