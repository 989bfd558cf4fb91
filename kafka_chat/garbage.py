"""How often Python looks for garbage in cycles, in a process that serves."""

from __future__ import annotations

import gc

# Python's own 700 have it look through everything young again and again while clients connect: two fifths of the CPU of a
# connect. What it finds are the cycles of connections that ended, some 170 objects each.
YOUNG_OBJECTS = 50_000
YOUNG_ROUNDS = 20
MIDDLE_ROUNDS = 100


def collect_seldom() -> None:
    """Leave out of every later collection what is there now, and collect what comes seldom. Once, before serving.

    Measured with 3,000 clients that connect: 1.05 ms of CPU each before, 0.55 after, and the same memory. With
    collection switched off it is no less, so nothing is left to be gained.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, MIDDLE_ROUNDS)
