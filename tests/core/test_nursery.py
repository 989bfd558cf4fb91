"""Which errors leave the nursery of an `open_x`."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kafka_chat.nursery import open_tasks
from tests.support.deadlines import HANG_SECONDS


async def test_an_error_that_is_alone_comes_out_as_itself_with_its_cause():
    async def run_into_a_bug() -> None:
        async with open_tasks(), open_tasks() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise ValueError("bug") from KeyError("why")

    with pytest.raises(ValueError, match="bug") as caught:
        await run_into_a_bug()
    assert isinstance(caught.value.__cause__, KeyError)


async def test_a_task_that_dies_ends_the_block():
    async def die() -> None:
        raise ValueError("bug")

    async def live_on() -> None:
        async with open_tasks() as nursery:
            nursery.start_soon(die)
            await trio.sleep_forever()

    with pytest.raises(ValueError, match="bug"):
        await live_on()


async def test_several_errors_come_out_together():
    async def die() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("second")

    with pytest.RaisesGroup(ValueError, KeyError):
        async with open_tasks() as nursery:
            nursery.start_soon(die)
            await trio.testing.wait_all_tasks_blocked()
            raise ValueError("first")


async def test_the_tasks_end_with_the_block_and_a_cancel_passes_through():
    with trio.move_on_after(0.01) as scope:
        async with open_tasks() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    with trio.fail_after(HANG_SECONDS):
        async with open_tasks() as nursery:
            nursery.start_soon(trio.sleep_forever)
