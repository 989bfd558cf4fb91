"""How many messages a client has sent in the last ten seconds."""

from __future__ import annotations

from array import array

RATE_SECONDS = 10.0
SLOTS = 100  # tenths of a second. A time for each of 1,000 messages would be 32 KiB a socket, more than all the rest of it


class MessageRate:
    """Counts by tenths of a second, in 300 bytes; so the ten seconds are at least 9.9, and never over 10."""

    __slots__ = ("_counts", "_latest", "_total")

    def __init__(self) -> None:
        self._counts = array("H", bytes(2 * SLOTS))  # a ring, by slot number; a client is closed long before 65,535
        self._latest = 0
        self._total = 0

    def count(self, now: float) -> int:
        """Count a message; return how many there were in the last ten seconds, this one included.

        Args:
            now: in seconds, by a clock that only goes forward.
        """
        slot = int(now * (SLOTS / RATE_SECONDS))
        for passed in range(max(self._latest, slot - SLOTS) + 1, slot + 1):
            self._total -= self._counts[passed % SLOTS]
            self._counts[passed % SLOTS] = 0
        self._latest = slot
        self._counts[slot % SLOTS] += 1
        self._total += 1
        return self._total
