"""How often Python looks for garbage in cycles, in a process that serves."""

from __future__ import annotations

import gc

# Python's own 700 have it look through everything young again and again while clients connect: two fifths of the CPU of a
# connect. The loop is held up meanwhile: 7 ms for 20,000 objects, so a look at what is young, or was a moment ago, has to be
# at no more than that. What it finds is what requests leave, Quart's closures. Connections are freed without it when they end
# (`web/server/connection.py`), so a look at everything (220 ms with 2,000 clients) may wait for half a million of them.
YOUNG_OBJECTS = 8_000
YOUNG_ROUNDS = 1
# Python counts what comes less what goes. Where 1,500 pages that waited are answered and asked for again, hardly anything seems to be
# new, and then a million of young objects are looked at in one step (270 ms). So requests are counted, too: one makes 700 objects.
REQUESTS_A_LOOK = 8
MIDDLE_ROUNDS = 1_000_000  # looks at what is young until there is one at everything: eight million requests


class RequestCount:
    """Has Python look at what is young once in so many requests."""

    def __init__(self) -> None:
        self._until_look = REQUESTS_A_LOOK

    def add(self) -> None:
        """Count a request that begins."""
        self._until_look -= 1
        if not self._until_look:
            self._until_look = REQUESTS_A_LOOK
            gc.collect(1)


def collect_seldom() -> None:
    """Leave out of every later collection what is there now, and collect what comes seldom. Once, before serving.

    Measured with 3,000 clients that connect: 1.05 ms of CPU each before, 0.55 after, and the same memory. With
    collection switched off it is no less, so nothing is left to be gained.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, MIDDLE_ROUNDS)
