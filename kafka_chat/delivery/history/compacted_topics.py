"""Remembers for a while which topics are compacted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...errors import BrokerError

if TYPE_CHECKING:
    from ..ports import Lookup

COMPACTED_SECONDS = 60.0  # how long the answer is remembered, …
COMPACTED_TOPICS = 1000  # … and for how many topics


class CompactedTopics:
    """Asks whether topics are compacted.

    Args:
        lookup: asks the brokers.
    """

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._known: dict[str, tuple[float, bool]] = {}  # topic -> when the answer expires, and the answer

    async def has(self, topic: str) -> bool:
        """Return whether a topic is compacted, so that records in its middle may vanish; True if no broker answers."""
        remembered_until, compacted = self._known.get(topic, (0.0, True))
        if trio.current_time() < remembered_until:
            return compacted
        try:
            compacted = await self._lookup.compacted(topic)
        except BrokerError:
            return True
        if len(self._known) >= COMPACTED_TOPICS:
            self._known.clear()
        self._known[topic] = trio.current_time() + COMPACTED_SECONDS, compacted
        return compacted
