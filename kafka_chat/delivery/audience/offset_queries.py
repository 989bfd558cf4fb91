"""Offsets of times, asked of the brokers for all sessions that want them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...chat.partition_key import PartitionKey
    from ..ports import Lookup

# Times that are none; Kafka has the same ones.
FIRST = -2  # the first offset that is left
LAST = -1  # the last stable offset


class OffsetsAsked:
    """Offsets of times, and first offsets, asked of the brokers in a task of the service, as long as it takes them to answer."""

    AGAIN_SECONDS = 1.0

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._wanted: dict[int, dict[PartitionKey, list[Callable[[int], None]]]] = {}
        self._asking: dict[PartitionKey, list[Callable[[int], None]]] = {}  # what the question under way is for
        self._news = trio.Event()

    def want(self, key: PartitionKey, time_ms: int, begin: Callable[[int], None]) -> None:
        """Have `begin(offset)` called once the offset of that time, `FIRST` or `LAST` is known.

        What is wanted while a question is under way is one question afterwards: five thousand sessions ask as one.
        """
        self._wanted.setdefault(time_ms, {}).setdefault(key, []).append(begin)
        self._news.set()

    def forget(self, key: PartitionKey) -> None:
        """No longer ask for a partition that nobody follows."""
        for wanted in (self._asking, *self._wanted.values()):
            wanted.pop(key, None)

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            for time_ms in list(self._wanted):
                await self._resolve(time_ms)
            self._wanted = {time_ms: wanted for time_ms, wanted in self._wanted.items() if wanted}
            if self._wanted and not self._news.is_set():
                self._news.set()
                await trio.sleep(self.AGAIN_SECONDS)

    async def _resolve(self, time_ms: int) -> None:
        self._asking, self._wanted[time_ms] = self._wanted[time_ms], {}
        keys = tuple(self._asking)
        try:
            offsets = await self._ask(keys, time_ms)
        except BrokerError:
            offsets = {}  # asked again; that the brokers are away is told by the Tail
        asked, self._asking = self._asking, {}
        for key, begins in asked.items():
            if key in offsets:
                for begin in begins:
                    begin(offsets[key])
            else:
                self._wanted[time_ms].setdefault(key, []).extend(begins)

    async def _ask(self, keys: Sequence[PartitionKey], time_ms: int) -> Mapping[PartitionKey, int]:
        if time_ms == FIRST:
            return await self._lookup.first_offsets(keys)
        if time_ms == LAST:
            return await self._lookup.last_stable_offsets(keys)
        return await self._lookup.offsets_at(keys, time_ms)
