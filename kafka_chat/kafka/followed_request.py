"""What the Tail knows of one request to follow a topic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .poller import Assignment


@dataclass(eq=False, slots=True)
class FollowedRequest:
    """One request, and what is known of its topic; a topic requested again is another one.

    Attributes:
        topic: as requested.
        requested: when; `trio.current_time()`, like all times here.
        looked: when it was last looked at.
        watched: whether the watch looks after it; until then the task for new requests does.
        topic_id: of the topic that was found; "" while there is none.
        former: the ids of those that had the name before. A broker that lags behind may still name them.
        resumable: the ids of those that were absent, and the positions in them, should they come back.
        known: its partitions, as they were when it was found, and those that were opened since.
        leaderless: those of them that have no leader now.
        assignments: those that are opened.
        opened: whether the listener was told of it.
        missing: whether the listener was told that it is missing.
        absent_since: when the first of the listings in a row was asked for that lack it.
        absent: whether it is known for certain that there was none, so that one that comes is a new one.
    """

    topic: str
    requested: float
    looked: float = float("-inf")
    watched: bool = False
    topic_id: str = ""
    former: set[str] = field(default_factory=set)
    resumable: dict[str, dict[int, int]] = field(default_factory=dict)
    known: frozenset[int] = frozenset()
    leaderless: frozenset[int] = frozenset()
    assignments: dict[int, Assignment] = field(default_factory=dict)
    opened: bool = False
    missing: bool = False
    absent_since: float | None = None
    absent: bool = False
