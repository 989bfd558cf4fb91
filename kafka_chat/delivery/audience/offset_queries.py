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
EARLIEST_TIMESTAMP = -2  # the first offset that is left
LATEST_TIMESTAMP = -1  # the last stable offset


class OffsetQueries:
    """Offsets of times, and first offsets, asked of the brokers in a task of the service, as long as it takes them to answer."""

    AGAIN_SECONDS = 1.0

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._queries: dict[int, dict[PartitionKey, list[Callable[[int], None]]]] = {}
        self._in_flight: dict[PartitionKey, list[Callable[[int], None]]] = {}  # what the question under way is for
        self._news = trio.Event()

    def ask(self, key: PartitionKey, time_ms: int, begin: Callable[[int], None]) -> None:
        """Have `begin(offset)` called once the offset of that time, `EARLIEST_TIMESTAMP` or `LATEST_TIMESTAMP` is known.

        What is wanted while a question is under way is one question afterwards: five thousand sessions ask as one.
        """
        self._queries.setdefault(time_ms, {}).setdefault(key, []).append(begin)
        self._news.set()

    def forget(self, key: PartitionKey) -> None:
        """No longer ask for a partition that nobody follows."""
        for queries in (self._in_flight, *self._queries.values()):
            queries.pop(key, None)

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            for time_ms in list(self._queries):
                await self._resolve(time_ms)
            self._queries = {time_ms: queries for time_ms, queries in self._queries.items() if queries}
            if self._queries and not self._news.is_set():
                self._news.set()
                await trio.sleep(self.AGAIN_SECONDS)

    async def _resolve(self, time_ms: int) -> None:
        self._in_flight, self._queries[time_ms] = self._queries[time_ms], {}
        keys = tuple(self._in_flight)
        try:
            offsets = await self._query(keys, time_ms)
        except BrokerError:
            offsets = {}  # asked again; that the brokers are away is told by the Tail
        asked, self._in_flight = self._in_flight, {}
        for key, begins in asked.items():
            if key in offsets:
                for begin in begins:
                    begin(offsets[key])
            else:
                self._queries[time_ms].setdefault(key, []).extend(begins)

    async def _query(self, keys: Sequence[PartitionKey], time_ms: int) -> Mapping[PartitionKey, int]:
        if time_ms == EARLIEST_TIMESTAMP:
            return await self._lookup.first_offsets(keys)
        if time_ms == LATEST_TIMESTAMP:
            return await self._lookup.last_stable_offsets(keys)
        return await self._lookup.offsets_at(keys, time_ms)
