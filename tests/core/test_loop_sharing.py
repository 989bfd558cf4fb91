"""A long walk gives others their turn."""

from __future__ import annotations

from time import perf_counter

import trio

from kafka_chat.loop_sharing import TURN_SECONDS, Turn


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
