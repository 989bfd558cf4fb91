"""Sockets are called at the times of their tokens, in order, and those that are gone cost nothing."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.delivery.session.deadlines import LEFT_BEHIND, Deadlines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(eq=False)
class Socket:
    """What has deadlines, one after the other."""

    times: list[float]
    called: list[float] = field(default_factory=list)

    @property
    def deadline(self) -> float | None:
        return self.times[0] if self.times else None

    def on_deadline(self) -> None:
        self.called.append(trio.current_time())
        self.times.pop(0)


@asynccontextmanager
async def running(deadlines: Deadlines) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        await wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


async def test_each_socket_is_called_at_each_of_its_times(autojump_clock: MockClock):
    deadlines, now = Deadlines(), trio.current_time()
    late, early, never = Socket([now + 9, now + 20]), Socket([now + 3, now + 4]), Socket([])
    async with running(deadlines):
        for socket in (late, early, never):
            deadlines.watch(socket)
        assert len(deadlines) == 2
        await trio.sleep(30)
    assert (late.called, early.called, never.called) == ([now + 9, now + 20], [now + 3, now + 4], [])
    assert len(deadlines) == 0


async def test_a_time_in_the_past_is_now(autojump_clock: MockClock):
    deadlines, socket = Deadlines(), Socket([trio.current_time() - 5])
    async with running(deadlines):
        deadlines.watch(socket)
        await wait_all_tasks_blocked()
    assert socket.called == [trio.current_time()]


async def test_a_new_time_takes_the_place_of_the_old_one_and_who_is_gone_is_not_called(autojump_clock: MockClock):
    deadlines, now = Deadlines(), trio.current_time()
    renewed, gone = Socket([now + 5]), Socket([now + 5])
    async with running(deadlines):
        deadlines.watch(renewed)
        deadlines.watch(gone)
        renewed.times = [now + 50]
        deadlines.watch(renewed)
        deadlines.forget(gone)
        deadlines.forget(gone)
        await trio.sleep(60)
    assert (renewed.called, gone.called) == ([now + 50], [])


async def test_those_that_come_and_go_leave_nothing_behind():
    deadlines, now, draw = Deadlines(), trio.current_time(), random.Random(1)
    staying = [Socket([now + draw.uniform(1000, 2000)]) for _ in range(100)]
    for socket in staying:
        deadlines.watch(socket)
    for _ in range(20 * LEFT_BEHIND):
        passing = Socket([now + draw.uniform(1000, 2000)])
        deadlines.watch(passing)
        deadlines.forget(passing)
    assert len(deadlines) == 100
    assert len(deadlines._heap) <= 2 * LEFT_BEHIND
