"""What `/ready` reports."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

TOLD = 20  # partitions of a kind that are named; a reader needs examples, not 10,000 sentences


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """What `/ready` reports.

    Attributes:
        ready: whether clients should be sent here.
        problems: why it is not ready, a sentence each.
        notices: what is wrong although it is ready, a sentence each.
    """

    ready: bool
    problems: list[str]
    notices: list[str]


ALL_WELL = Readiness(ready=True, problems=[], notices=[])


def leaderless_notices(leaderless: Mapping[str, frozenset[int]]) -> list[str]:
    """Return a sentence for each of the first `TOLD` partitions without a leader, and one for the rest.

    Args:
        leaderless: topic -> its partitions without a leader.
    """
    told = [
        f"{topic}/{partition} has no leader; its messages wait"
        for topic in heapq.nsmallest(TOLD, leaderless)
        for partition in heapq.nsmallest(TOLD, leaderless[topic])
    ][:TOLD]
    rest = sum(map(len, leaderless.values())) - len(told)
    return [*told, f"{rest} more partitions have no leader"] if rest else told


def held_notices(held: Mapping[tuple[str, int], int]) -> list[str]:
    """Return a sentence for each of the first `TOLD` partitions that an open transaction blocks, and one for the rest.

    Args:
        held: topic and partition -> the offset where it is blocked.
    """
    told = [
        f"{topic}/{partition} is held up by an open transaction at offset {held[topic, partition]}; its messages wait until that ends"
        for topic, partition in heapq.nsmallest(TOLD, held)
    ]
    rest = len(held) - len(told)
    return [*told, f"{rest} more partitions are held up by open transactions"] if rest else told
