"""Identifies the Kafka cluster at the brokers' addresses: a cursor belongs to one cluster, and another may replace it."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import trio

from ..chat.resume_cursor import cluster_mark
from ..errors import BrokerError
from .lookup import NO_TOPIC_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..delivery.ports import TopicFacts
    from ..telemetry.metrics import Telemetry
    from .lookup import KafkaLookup

LOOK_SECONDS = 1.0  # how often the brokers are asked


class Cluster:
    """The cluster that answered last.

    Args:
        lookup: asks the brokers.
        telemetry: records a replacement.

    Attributes:
        mark: its name in cursors; None before a broker has answered.
        replaced: how many times another cluster has replaced it.
        on_replaced: called after a replacement, in the same step that changes `mark`.
    """

    def __init__(self, lookup: KafkaLookup, telemetry: Telemetry) -> None:
        self.mark: bytes | None = None
        self.replaced = 0
        self.on_replaced: list[Callable[[], None]] = []
        self._lookup = lookup
        self._telemetry = telemetry
        self._id = ""
        self._seen: dict[str, str] = {}  # one topic, with its id
        self._looking = trio.Lock()
        self._asked = float("-inf")  # when the last answer was requested

    async def run(self) -> None:
        """Ask periodically, until cancelled."""
        while True:
            with suppress(BrokerError):  # the Tail reports brokers that are away
                await self.look()
            await trio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Ask which cluster it is now: the answer is as of this call, or later. Concurrent calls share a request.

        Raises:
            BrokerUnreachable: no broker answers.
        """
        wanted = trio.current_time()
        async with self._looking:
            if self._asked < wanted:
                asked = trio.current_time()
                self._found(await self._lookup.cluster_id())
                self._asked = asked

    async def describe(self, known: Mapping[str, str]) -> Mapping[str, TopicFacts]:
        """Return the facts of the topics that exist, in the cluster of the current `mark`.

        A topic seen before is described with them. If any of them has the id it had, the cluster is the same; if none has, the brokers
        are asked for the cluster's id before this returns.

        Args:
            known: topic -> its id as last seen; "" for none.

        Raises:
            BrokerUnreachable: no broker answers.
        """
        known = {**known, **self._seen}
        while True:
            replaced = self.replaced
            facts = await self._lookup.describe(list(known))
            ids = {topic: found.topic_id for topic, found in facts.items() if found.topic_id != NO_TOPIC_ID}
            if any(known[topic] == topic_id for topic, topic_id in ids.items()) or not (facts or any(known.values())):
                break
            await self.look()
            if self.replaced == replaced:
                break
        self._seen = dict(islice(ids.items(), 1))
        return facts

    async def may_be(self, mark: bytes | None) -> bool:
        """Whether a cursor with this mark may be of this cluster; asks the brokers first if not, since the cluster may just have changed.

        Raises:
            BrokerUnreachable: no broker answers.
        """
        if None in (mark, self.mark) or mark == self.mark:
            return True
        await self.look()
        return mark == self.mark

    def _found(self, cluster_id: str) -> None:
        earlier, self._id = self._id, cluster_id
        if earlier == cluster_id:
            return
        self.mark = cluster_mark(cluster_id)
        if earlier:
            self.replaced += 1
            self._telemetry.cluster_replaced(earlier=earlier, now=cluster_id)
            for tell in self.on_replaced:
                tell()
