"""Spreads many followed partitions over several Pollers, each with its Consumer.

librdkafka lists every partition in every fetch request, so latency grows with the partitions of a Consumer: 9 ms with 500
partitions, 43 with 2,000, 302 with 6,000 (measured). A topic stays on its Consumer for as long as it is followed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ..changes import Changes
from ..nursery import open_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from .poller import Assignment, Poller

PARTITIONS_EACH = 500  # with this many a record takes 9 ms; then another Consumer is started


@dataclass(slots=True)
class _Home:
    """The Poller of a topic.

    Attributes:
        poller: its Poller.
        partitions: its wanted partitions.
    """

    poller: Poller
    partitions: set[int] = field(default_factory=set)


class Pollers:
    """Has the interface of `Poller`, and uses as many of them as needed.

    Args:
        make: makes one that is not running yet.
        most: the maximum number of them.
    """

    def __init__(self, make: Callable[[], Poller], *, most: int) -> None:
        self._make = make
        self._most = most
        self._homes: dict[str, _Home] = {}
        self._pollers = [make()]
        self._more = Changes()

    def assign(self, assignment: Assignment) -> None:
        """As of the topic's `Poller`."""
        home = self._homes.get(assignment.key.topic)
        if home is None:
            home = self._homes[assignment.key.topic] = _Home(self._least())
        home.partitions.add(assignment.key.partition)
        home.poller.assign(assignment)

    def unassign(self, assignment: Assignment) -> None:
        """As of the topic's `Poller`."""
        if not self.wants(assignment):
            return
        home = self._homes[assignment.key.topic]
        home.poller.unassign(assignment)
        home.partitions.discard(assignment.key.partition)
        if not home.partitions:
            del self._homes[assignment.key.topic]

    def wants(self, assignment: Assignment) -> bool:
        """As of the topic's `Poller`."""
        home = self._homes.get(assignment.key.topic)
        return home is not None and home.poller.wants(assignment)

    @property
    def rounds(self) -> int:
        """How many rounds the slowest of them has made."""
        return min(poller.rounds for poller in self._pollers)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Poll until cancelled; started once the first one's Consumer exists. Others are started when needed."""
        async with open_tasks() as nursery:
            await nursery.start(self._pollers[0].run)
            task_status.started()
            begun = 1
            while True:
                version = self._more.version
                for poller in self._pollers[begun:]:
                    nursery.start_soon(poller.run)
                begun = len(self._pollers)
                await self._more.wait_beyond(version)

    def _least(self) -> Poller:
        """Return the Poller with the fewest partitions, or a new one if all are full."""
        least = min(self._pollers, key=_followed)
        if least.followed < PARTITIONS_EACH or len(self._pollers) >= self._most:
            return least
        self._pollers.append(self._make())
        self._more.note()
        return self._pollers[-1]


def _followed(poller: Poller) -> int:
    return poller.followed
