"""A task that waits for a change gets the next one after its look, and misses none in between."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.changes import Changes
from tests.support.deadlines import HANG_SECONDS


async def test_a_change_between_the_look_and_the_wait_is_not_missed() -> None:
    changes = Changes()
    version = changes.version
    changes.note()
    with trio.fail_after(HANG_SECONDS):
        await changes.wait_beyond(version)


async def test_all_that_wait_are_woken_by_one_change_and_not_before() -> None:
    changes, woken = Changes(), 0

    async def wait() -> None:
        nonlocal woken
        await changes.wait_beyond(changes.version)
        woken += 1

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert woken == 0
        changes.note()
        await wait_all_tasks_blocked()
        assert woken == 3


async def test_a_later_version_may_be_waited_for() -> None:
    changes, arrived = Changes(), trio.Event()

    async def wait() -> None:
        await changes.wait_beyond(1)
        arrived.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        changes.note()
        await wait_all_tasks_blocked()
        assert not arrived.is_set()
        changes.note()
        await wait_all_tasks_blocked()
        assert arrived.is_set()


async def test_waiting_for_what_has_been_is_a_checkpoint() -> None:
    changes = Changes()
    changes.note()
    with trio.move_on_after(0) as scope:
        await changes.wait_beyond(0)
    assert scope.cancelled_caught


async def test_a_wait_that_is_cancelled_takes_nobody_along() -> None:
    changes, arrived = Changes(), trio.Event()

    async def wait() -> None:
        await changes.wait_beyond(0)
        arrived.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        with trio.move_on_after(0):
            await changes.wait_beyond(0)
        changes.note()
        with trio.fail_after(HANG_SECONDS):
            await arrived.wait()
