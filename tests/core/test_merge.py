"""A page scans far enough for messages that match a filter, and no further."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from time import thread_time

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.delivery.log.merge import SCAN_OFFSETS, BackwardScan, ForwardScan, PartitionScan, merge_by_time
from kafka_chat.delivery.records.batch import HistoryMessage, Mark
from tests.support.loop_steps import loop_rounds, loop_steps


class Nothing:
    """A range of which a page shows nothing."""

    def __init__(self, first: int, next: int) -> None:
        self.first = first
        self.next = next

    def marks(self, *, first: int, end: int) -> Sequence[object]:
        return []


class NothingAnywhere:
    """A partition of which a page shows nothing; `fetched` is where it was read."""

    def __init__(self, piece: int, *, seconds: float = 0.0) -> None:
        self.fetched: list[int] = []
        self._piece = piece
        self._seconds = seconds

    async def fetch(self, offset: int) -> Nothing:
        self.fetched.append(offset)
        await trio.sleep(self._seconds)
        first = offset - offset % self._piece
        return Nothing(first, first + self._piece)


@pytest.mark.parametrize(("pieces", "read"), [(1, 1), (2, 2), (5, 5), (7, 7)])
async def test_it_ends_once_it_has_looked_at_so_many_offsets(pieces: int, read: int, autojump_clock: MockClock):
    piece = SCAN_OFFSETS // 5
    source = NothingAnywhere(piece)
    forward = ForwardScan(0, source, 0, pieces * piece, most=10)  # type: ignore[arg-type]
    assert await merge_by_time([forward], messages=10, size=1000) == []
    assert len(source.fetched) == min(read, 5)
    assert forward.position == min(read, 5) * piece
    assert forward.at_end is (pieces <= 5)

    source = NothingAnywhere(piece)
    backward = BackwardScan(0, source, pieces * piece, 0, most=10)  # type: ignore[arg-type]
    assert await merge_by_time([backward], messages=10, size=1000) == []
    assert backward.position == max(0, pieces - 5) * piece
    assert all(later == earlier - piece for earlier, later in pairwise(source.fetched))


async def test_it_ends_once_its_time_is_over_but_looks_at_something(autojump_clock: MockClock):
    slow = NothingAnywhere(10, seconds=1.0)
    scan = ForwardScan(0, slow, 0, 1000, most=10, scan_seconds=2.0)  # type: ignore[arg-type]
    await scan.fill()
    assert slow.fetched == [0, 10]
    never = NothingAnywhere(10, seconds=1.0)
    scan = ForwardScan(0, never, 0, 1000, most=10, scan_seconds=0.0)  # type: ignore[arg-type]
    await scan.fill()
    assert never.fetched == [0]


class Slow:
    """A range whose messages take half a millisecond each to make."""

    def __init__(self, count: int) -> None:
        self.first = 0
        self.next = count

    def marks(self, *, first: int, end: int) -> Sequence[Mark]:
        return [Mark(offset, offset) for offset in range(first, end)]

    def message(self, offset: int) -> HistoryMessage:
        until = thread_time() + 0.0005
        while thread_time() < until:
            pass
        return HistoryMessage(offset, offset, b"{}")

    async def fetch(self, offset: int) -> Slow:
        await trio.lowlevel.checkpoint()
        return self


async def test_others_go_on_while_a_long_page_is_made():
    scans = [ForwardScan(partition, Slow(100), 0, 100, most=200) for partition in range(2)]  # type: ignore[arg-type]
    with loop_steps() as steps:
        await trio.lowlevel.checkpoint()
        assert len(await merge_by_time(scans, messages=200, size=10_000)) == 200
        await trio.lowlevel.checkpoint()
    steps.check()


async def test_of_pages_that_are_made_together_one_has_its_turn_in_a_round():
    async def make() -> None:
        scans = [ForwardScan(0, Slow(5), 0, 5, most=10)]  # type: ignore[arg-type]
        assert len(await merge_by_time(scans, messages=10, size=10_000)) == 5

    with loop_rounds() as rounds:
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(make)
    assert rounds.longest_ms < 40  # all in one would be 100


class LongToSort(Nothing):
    """A range that takes two and a half milliseconds to look through."""

    def marks(self, *, first: int, end: int) -> Sequence[object]:
        until = thread_time() + 0.0025
        while thread_time() < until:
            pass
        return []


@pytest.mark.parametrize("kind", [ForwardScan, BackwardScan])
async def test_of_those_that_have_waited_for_the_same_piece_one_goes_on_in_a_round(kind: type[PartitionScan]):
    come = trio.Event()

    class Awaited:
        async def fetch(self, offset: int) -> LongToSort:
            await come.wait()
            return LongToSort(0, 10)

    begin, bound = (0, 10) if kind is ForwardScan else (10, 0)
    with loop_rounds() as rounds:
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(kind(0, Awaited(), begin, bound, most=10).scan)  # type: ignore[arg-type]
            await wait_all_tasks_blocked()
            come.set()
    assert rounds.longest_ms < 40  # all in one would be 100
