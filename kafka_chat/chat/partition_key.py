"""Which partition of which topic."""

from __future__ import annotations

from typing import NamedTuple


class PartitionKey(NamedTuple):
    """One partition of one topic, and not of a later topic with the same name."""

    topic: str
    topic_id: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"
