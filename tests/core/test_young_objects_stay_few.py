"""However many requests begin while as many end, the garbage collector works in small steps, since each blocks everything."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from kafka_chat.process.gc_tuning import MIDDLE_ROUNDS, REQUESTS_A_LOOK, YOUNG_OBJECTS, YOUNG_ROUNDS, RequestCount

REQUESTS = 400
OBJECTS = 700  # that one request makes


@pytest.fixture
def our_thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, MIDDLE_ROUNDS)
    yield
    gc.set_threshold(*before)


def most_young(count: RequestCount | None) -> int:
    """Have each of many requests end and another one begin in its place; return how many objects were young at most."""
    waiting = [[[number] for number in range(OBJECTS)] for _ in range(REQUESTS)]
    gc.collect()  # they have waited for a while
    most = 0
    for at in range(REQUESTS):
        waiting[at] = [[number] for number in range(OBJECTS)]
        if count is not None:
            count.add()
        if not at % 10:
            most = max(most, len(gc.get_objects(0)) + len(gc.get_objects(1)))
    return most


def test_without_a_count_of_requests_what_ends_hides_what_begins(our_thresholds):
    assert most_young(None) > 100 * OBJECTS, "Python has changed: the count is needed no more"


def test_requests_are_counted_so_that_few_objects_are_young(our_thresholds):
    assert most_young(RequestCount()) < (REQUESTS_A_LOOK + 10) * (OBJECTS + 1) + YOUNG_OBJECTS
