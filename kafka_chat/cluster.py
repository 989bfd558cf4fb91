"""Identifies the Kafka cluster, because a cursor belongs to one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .chat.resume_cursor import cluster_mark
from .errors import BrokerError

if TYPE_CHECKING:
    from .kafka.lookup import KafkaLookup

AGAIN_SECONDS = 1.0


class Cluster:
    """The cluster, whose mark is learned once.

    Args:
        lookup: is asked.

    Attributes:
        mark: its name in cursors; None before a broker has answered.
    """

    def __init__(self, lookup: KafkaLookup) -> None:
        self.mark: bytes | None = None
        self._lookup = lookup

    async def run(self) -> None:
        """Learn the mark, as long as it takes."""
        while self.mark is None:
            try:
                self.mark = cluster_mark(await self._lookup.cluster_id())
            except BrokerError:
                await trio.sleep(AGAIN_SECONDS)
