"""Asks the leaders of many partitions separately, so that one that hangs does not delay the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from ..errors import BrokerError, BrokerUnreachable
from ..nursery import open_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from ..chat.partition_key import PartitionKey
    from ..delivery.ports import Lookup

T = TypeVar("T")


async def ask_each_leader(
    lookup: Lookup,
    keys: Collection[PartitionKey],
    ask: Callable[[Sequence[PartitionKey]], Awaitable[Mapping[PartitionKey, T]]],
    *,
    told: Callable[[Mapping[PartitionKey, T]], None] = lambda _: None,
) -> Mapping[PartitionKey, T]:
    """Return the answers about `keys`, without those whose leader does not answer within `BrokerTimeouts.together_seconds`.

    Args:
        lookup: knows the leaders.
        keys: the partitions.
        ask: asks about partitions of one leader.
        told: called with each leader's answer as soon as it comes.

    Raises:
        BrokerError: no leader answered; the error of one of them.
    """
    offsets: dict[PartitionKey, T] = {}
    errors: list[BrokerError] = []
    groups = list(lookup.by_leader(keys).values())
    left, answered = len(groups), False
    over = trio.Event()

    async def ask_one(led: Sequence[PartitionKey]) -> None:
        nonlocal left, answered
        try:
            found = await ask(led)
        except BrokerError as error:
            errors.append(error)
        else:
            answered = True
            offsets.update(found)
            told(found)
        left -= 1
        if not left:
            over.set()

    if len(groups) == 1:
        await ask_one(groups[0])
    elif groups:
        async with open_tasks() as nursery:
            for led in groups:
                nursery.start_soon(ask_one, led)
            with trio.move_on_after(lookup.timeouts.together_seconds):
                await over.wait()
    if groups and not answered:
        raise errors[0] if errors else BrokerUnreachable("no leader has answered in time")
    return offsets
