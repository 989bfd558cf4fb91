"""How often Python collects cyclic garbage in a process that serves."""

from __future__ import annotations

import gc

# The default threshold (700) runs the young generation constantly during connects: 40 % of their CPU. A collection blocks the
# loop, 7 ms for 20,000 objects, so the two young generations together stay below that. They hold what requests leave behind,
# Quart's closures. Ended connections are freed without the collector (`web/server/connection.py`), so a full collection (220 ms
# with 2,000 clients) may wait for half a million of them.
YOUNG_OBJECTS = 8_000
YOUNG_ROUNDS = 1
# Python counts allocations minus deallocations. When 1,500 waiting pages are answered and requested again, the count hardly grows, and
# at last a million young objects are collected in one step (270 ms). So requests are counted, too; each makes 700 objects.
REQUESTS_A_LOOK = 8
MIDDLE_ROUNDS = 1_000_000  # young collections before a full one: eight million requests


class RequestCount:
    """Runs a young collection every `REQUESTS_A_LOOK` requests."""

    def __init__(self) -> None:
        self._until_look = REQUESTS_A_LOOK

    def add(self) -> None:
        """Count a request that begins."""
        self._until_look -= 1
        if not self._until_look:
            self._until_look = REQUESTS_A_LOOK
            gc.collect(1)


def collect_seldom() -> None:
    """Exclude all existing objects from collections, and collect new ones seldom. Call it once, before serving.

    Measured with 3,000 clients that connect: 1.05 ms of CPU each before, 0.55 after, with the same memory. Switching
    collection off gains nothing more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, MIDDLE_ROUNDS)
