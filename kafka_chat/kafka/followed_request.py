"""What the Tail knows of one request to follow a topic, and whose turn it is to be looked at."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .topic_state import TRANSITIONS, TopicState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .lookup import LogEnd
    from .poller import Assignment
    from .topic_state import TopicAction, TopicEvent

TOPICS_A_LOOK = 500  # describing so many takes 13 ms
WATCHES_A_ROUND = 5  # where more topics are followed, a watch looks at a part of them, several times so many: a round takes 5 s


@dataclass(eq=False, slots=True)
class FollowedRequest:
    """One request, and what is known of its topic; a topic requested again is another one.

    Attributes:
        topic: as requested.
        requested: when; `trio.current_time()`, like all times here.
        state: what is known of it.
        looked: when it was last looked at.
        watched: whether the watch looks after it; until then the task for new requests does.
        topic_id: of the topic that was found; "" while there is none.
        former: the ids of those that had the name before. A broker that lags behind may still name them.
        resumable: the ids of those that were lost, and the positions in them, should they come back.
        known: its partitions, as they were when it was found, and those that were opened since.
        leaderless: those of them that have no leader now.
        assignments: those that are opened.
        absent_since: when the first of the listings in a row was asked for that lack it.
    """

    topic: str
    requested: float
    state: TopicState = TopicState.REQUESTED
    looked: float = float("-inf")
    watched: bool = False
    topic_id: str = ""
    former: set[str] = field(default_factory=set)
    resumable: dict[str, dict[int, LogEnd]] = field(default_factory=dict)
    known: frozenset[int] = frozenset()
    leaderless: frozenset[int] = frozenset()
    assignments: dict[int, Assignment] = field(default_factory=dict)
    absent_since: float | None = None

    @property
    def opened(self) -> bool:
        """Whether the listener was told of it."""
        return self.state is TopicState.OPENED

    def take(self, event: TopicEvent) -> TopicAction:
        """Go to the next state; return what is to be done."""
        self.state, action = TRANSITIONS[self.state, event]
        if self.state is not TopicState.FOUND:
            self.watched = True
        return action


def due_of_each_kind(followed: Iterable[FollowedRequest], is_subscribed: Callable[[str], bool]) -> Iterator[FollowedRequest]:
    """Yield those whose turn it is: thousands of names that strangers made up keep no chat waiting.

    Args:
        followed: all; those that are not watched are left out.
        is_subscribed: whether somebody has subscribed to a topic.
    """
    kinds: dict[tuple[bool, bool], list[FollowedRequest]] = {}
    for one in followed:
        if one.watched:
            kinds.setdefault((one.opened, one.opened or is_subscribed(one.topic)), []).append(one)
    for topics in kinds.values():
        yield from heapq.nsmallest(max(TOPICS_A_LOOK, -(-len(topics) // WATCHES_A_ROUND)), topics, key=_looked)


def _looked(followed: FollowedRequest) -> float:
    return followed.looked
