"""Where a session begins in a topic, and how that becomes an offset a partition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ..errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .batch import PartitionKey
    from .seams import Lookup

EARLIER_MS = 10_000  # how much before the accept a session begins that was accepted while no broker could be asked


@dataclass(frozen=True, slots=True)
class Latest:
    """At the head: what is produced from now on."""


@dataclass(frozen=True, slots=True)
class Since:
    """At the first record of a time: Unix, in milliseconds."""

    time_ms: int


@dataclass(frozen=True, slots=True)
class At:
    """At these offsets of this very topic; partitions that are not named, and another topic, begin at 0.

    Attributes:
        topic_id: whose offsets they are; "" where there was no such topic.
        offsets: partition -> offset.
    """

    topic_id: str
    offsets: Mapping[int, int]

    def offset(self, key: PartitionKey) -> int:
        """Return the first offset to deliver of this partition."""
        return self.offsets.get(key.partition, 0) if key.topic_id == self.topic_id else 0


Start = Latest | Since | At

LATEST = Latest()


class TimesResolved:
    """Offsets for times, asked of the brokers in a task of the service, as long as it takes them to answer."""

    AGAIN_SECONDS = 1.0

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._wanted: dict[tuple[PartitionKey, int], list[Callable[[int], None]]] = {}
        self._news = trio.Event()

    def want(self, key: PartitionKey, time_ms: int, begin: Callable[[int], None]) -> None:
        """Have `begin(offset)` called once the offset of that time is known.

        Times are asked for by the whole second before them, so that five thousand sessions ask as one.
        """
        self._wanted.setdefault((key, time_ms - time_ms % 1000), []).append(begin)
        self._news.set()

    def forget(self, key: PartitionKey) -> None:
        """No longer ask for times in a partition that nobody follows."""
        for wanted in [wanted for wanted in self._wanted if wanted[0] == key]:
            del self._wanted[wanted]

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            for time_ms in {time_ms for _, time_ms in self._wanted}:
                await self._resolve(time_ms, [key for key, other in self._wanted if other == time_ms])
            if self._wanted:
                self._news.set()
                await trio.sleep(self.AGAIN_SECONDS)

    async def _resolve(self, time_ms: int, keys: list[PartitionKey]) -> None:
        try:
            offsets = await self._lookup.offsets_at(keys, time_ms)
        except BrokerError:
            return  # asked again; that the brokers are away is told by the Tail
        for key, offset in offsets.items():
            for begin in self._wanted.pop((key, time_ms), ()):
                begin(offset)
