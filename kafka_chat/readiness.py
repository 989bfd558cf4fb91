"""What `/ready` tells."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

LEADERLESS_TOLD = 20  # partitions that are named: who reads it needs examples, not 10,000 sentences


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """What `/ready` tells.

    Attributes:
        ready: whether clients should be sent here.
        problems: why not, a sentence each.
        notices: what is wrong without making it unready, a sentence each.
    """

    ready: bool
    problems: list[str]
    notices: list[str]


def leaderless_notices(leaderless: Mapping[str, frozenset[int]]) -> list[str]:
    """Return a sentence for each partition without a leader, or, beyond `LEADERLESS_TOLD` of them, for the rest together.

    Args:
        leaderless: topic -> its partitions without a leader.
    """
    told = [
        f"{topic}/{partition} has no leader; its messages wait"
        for topic in heapq.nsmallest(LEADERLESS_TOLD, leaderless)
        for partition in heapq.nsmallest(LEADERLESS_TOLD, leaderless[topic])
    ][:LEADERLESS_TOLD]
    rest = sum(map(len, leaderless.values())) - len(told)
    return [*told, f"{rest} more partitions have no leader"] if rest else told
