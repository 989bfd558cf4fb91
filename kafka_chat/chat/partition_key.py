"""Names one partition of one topic."""

from __future__ import annotations

from typing import NamedTuple


class PartitionKey(NamedTuple):
    """One partition of one topic; a later topic of the same name has other keys."""

    topic: str
    topic_id: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"
