"""Counts the messages of a client in the last ten seconds."""

from __future__ import annotations

from array import array

RATE_SECONDS = 10.0
SLOTS = 100  # tenths of a second; the times of 1,000 messages would take 32 KiB per socket, more than everything else


class MessageRate:
    """Counts by tenths of a second, in 300 bytes; so the period is between 9.9 and 10 seconds."""

    __slots__ = ("_counts", "_latest", "_total")

    def __init__(self) -> None:
        self._counts = array("H", bytes(2 * SLOTS))  # a ring, by slot number; a client is disconnected long before 65,535
        self._latest = 0
        self._total = 0

    def count(self, now: float) -> int:
        """Count a message; return the number in the last ten seconds, this one included.

        Args:
            now: seconds of a monotonic clock.
        """
        slot = int(now * (SLOTS / RATE_SECONDS))
        for passed in range(max(self._latest, slot - SLOTS) + 1, slot + 1):
            self._total -= self._counts[passed % SLOTS]
            self._counts[passed % SLOTS] = 0
        self._latest = slot
        self._counts[slot % SLOTS] += 1
        self._total += 1
        return self._total
