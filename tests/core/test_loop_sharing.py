"""A long walk yields to other tasks."""

from __future__ import annotations

from time import perf_counter

import trio

from kafka_chat.loop_sharing import TURN_SECONDS, Turn, TurnInLine


async def test_others_run_before_a_long_walk_is_over():
    ran = 0

    async def other() -> None:
        nonlocal ran
        while True:
            ran += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        turn = Turn()
        for _ in range(5):
            end = perf_counter() + 2 * TURN_SECONDS
            while perf_counter() < end:
                pass
            assert turn.over
            await turn.share()
        nursery.cancel_scope.cancel()
    assert ran >= 4  # trio may run the other task first or last in a round


async def test_a_short_walk_passes_no_checkpoint():
    with trio.CancelScope() as scope:
        scope.cancel()
        await Turn().share()
    assert not scope.cancelled_caught


async def walk(turns: list[int], number: int, *, count: int) -> None:
    """Note a walk's number at each of its turns, all of which are used up."""
    turn = TurnInLine()
    await turn.begin()
    for _ in range(count):
        turns.append(number)
        end = perf_counter() + 1.1 * TURN_SECONDS
        while perf_counter() < end:
            pass
        await turn.share()


async def test_of_walks_in_line_one_goes_on_in_each_round_and_each_when_its_time_has_come():
    turns: list[int] = []
    most = 0

    async def other() -> None:
        nonlocal most
        seen = 0
        while True:
            await trio.lowlevel.checkpoint()
            most, seen = max(most, len(turns) - seen), len(turns)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        async with trio.open_nursery() as walks:
            for number in range(20):
                walks.start_soon(lambda number=number: walk(turns, number, count=3))
        nursery.cancel_scope.cancel()
    assert len(turns) == 60
    assert all(len(set(turns[begin : begin + 20])) == 20 for begin in (0, 20, 40))
    assert most <= 2  # one a round, and trio may run the other task first in one round and last in the next


async def test_a_walk_that_leaves_the_line_keeps_nobody_waiting():
    turns: list[int] = []
    async with trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(6)]

        async def walk_within(number: int) -> None:
            with scopes[number]:
                await walk(turns, number, count=3)

        for number in range(6):
            nursery.start_soon(walk_within, number)
        for _ in range(8):  # a round each: some have had one turn, nobody three
            await trio.lowlevel.checkpoint()
        for scope in scopes[::2]:
            scope.cancel()
    assert [turns.count(number) for number in (1, 3, 5)] == [3, 3, 3]
    assert all(turns.count(number) < 3 for number in (0, 2, 4))
