"""The Tail's state of one request to follow a topic, and the choice of the requests to look up next."""

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

TOPICS_A_LOOK = 500  # describing this many takes 13 ms
WATCHES_A_ROUND = 5  # with more followed topics, a watch looks up a part of them; all of them are looked up in 5 s


@dataclass(eq=False, slots=True)
class FollowedRequest:
    """One request, and what is known of its topic; following the topic again makes a new one.

    Attributes:
        topic: its name.
        requested: when it was requested; `trio.current_time()`, like all times here.
        state: its state.
        looked: when it was last looked up.
        watched: whether the watch handles it; until then the task for new requests does.
        topic_id: the topic's id; "" while it does not exist.
        former: the ids of earlier topics of this name, which a broker with old metadata may still list.
        resumable: the ids of lost topics, and the positions in them, in case they reappear.
        known: its partitions when it was found, and those opened since.
        leaderless: the partitions that have no leader now.
        assignments: the assignments of opened partitions.
        absent_since: when the first of consecutive listings without it was requested.
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
        """Whether the listener knows it as opened."""
        return self.state is TopicState.OPENED

    def take(self, event: TopicEvent) -> TopicAction:
        """Go to the next state; return the action to take."""
        self.state, action = TRANSITIONS[self.state, event]
        if self.state is not TopicState.FOUND:
            self.watched = True
        return action


def due_of_each_kind(followed: Iterable[FollowedRequest], is_subscribed: Callable[[str], bool]) -> Iterator[FollowedRequest]:
    """Yield the requests to look up next, so that thousands of made-up names do not delay a chat.

    Args:
        followed: all requests; those that are not watched are skipped.
        is_subscribed: whether a topic has a subscriber.
    """
    kinds: dict[tuple[bool, bool], list[FollowedRequest]] = {}
    for one in followed:
        if one.watched:
            kinds.setdefault((one.opened, one.opened or is_subscribed(one.topic)), []).append(one)
    for topics in kinds.values():
        yield from heapq.nsmallest(max(TOPICS_A_LOOK, -(-len(topics) // WATCHES_A_ROUND)), topics, key=_looked)


def _looked(followed: FollowedRequest) -> float:
    return followed.looked
