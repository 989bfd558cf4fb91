"""The measure of how long the loop is blocked sees what blocks it, and nothing else."""

from __future__ import annotations

import pytest
import trio

from kafka_chat.loop_sharing import Turn
from tests.support.loop_steps import UNIT_ROUNDS, loop_steps


def work(units: int) -> None:
    """Take about this many calibrated milliseconds."""
    kept: dict[int, int] = {}
    for number in range(units * UNIT_ROUNDS):
        kept[number & 255] = number + len(kept)


async def test_a_step_that_holds_the_loop_is_found_by_its_name_and_length():
    async def held() -> None:
        await trio.lowlevel.checkpoint()
        work(30)

    async def short() -> None:
        for _ in range(10):
            work(1)
            await trio.lowlevel.checkpoint()

    with loop_steps() as steps:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(held)
            nursery.start_soon(short)
    assert "held" in steps.longest[0].task
    assert steps.longest[0].ms > 15
    assert all(step.ms < 10 for step in steps.longest_of("short"))
    with pytest.raises(AssertionError, match="held"):
        steps.check()
    steps.check(ignore=("held",))


async def test_a_walk_that_takes_turns_holds_nothing():
    turn = Turn()
    with loop_steps() as steps:
        for _ in range(60):
            work(1)
            await turn.share()
    steps.check()


async def test_a_measure_of_nothing_is_no_proof():
    with loop_steps() as steps:
        pass
    with pytest.raises(AssertionError, match="nothing was measured"):
        steps.check()
