"""Notifies followers of topics' events, one walk after the other; a walk yields to other tasks."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ...changes import Changes
from ...loop_sharing import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..log.follower import Follower


class Walk:
    """A walk over a topic's followers.

    Attributes:
        left: the followers it has not reached yet.
    """

    __slots__ = ("left",)

    def __init__(self, followers: Iterable[Follower]) -> None:
        self.left = set(followers)


class Walks:
    """The pending walks, in the order of the events.

    Attributes:
        changes: noted at the end of each walk.
    """

    def __init__(self) -> None:
        self.changes = Changes()
        self._queue: deque[Iterator[None]] = deque()
        self._more = Changes()

    def begin(self, followers: Iterable[Follower], visit: Callable[[Follower], Iterator[None]], *, then: Callable[[Walk], None]) -> Walk:
        """Call `visit` for each of the current followers.

        Args:
            followers: the followers; one that leaves meanwhile is still visited.
            visit: between two of its `yield`s nothing else runs.
            then: called when the walk is over.
        """
        walk = Walk(followers)
        self._queue.append(self._steps(walk, list(followers), visit, then))
        self._more.note()
        return walk

    async def run(self) -> None:
        """Walk until cancelled."""
        while True:
            version, turn = self._more.version, Turn()
            while self._queue:
                for _ in self._queue[0]:
                    await turn.share()
                self._queue.popleft()
                self.changes.note()
            await self._more.wait_beyond(version)

    def _steps(
        self, walk: Walk, followers: Iterable[Follower], visit: Callable[[Follower], Iterator[None]], then: Callable[[Walk], None]
    ) -> Iterator[None]:
        for follower in followers:
            yield from visit(follower)
            walk.left.discard(follower)
            follower.wake()
            yield
        then(walk)
