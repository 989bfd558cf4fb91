"""Connections are checked in turn, and the time in which the process stood still does not count against a client."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.settings.model import Limits
from kafka_chat.web.server.keepalive import LOOKS, Keepalive

LIMITS = Limits(ping_seconds=25.0, pong_seconds=10.0)


class Watched:
    """Notes what the keepalive says."""

    def __init__(self) -> None:
        self.looks: list[float] = []
        self.stood_still_seconds: list[float] = []

    def check_alive(self, now: float) -> None:
        self.looks.append(now)

    def stood_still(self, seconds: float) -> None:
        assert not self.looks or self.looks[-1] < trio.current_time() - seconds, "it was looked at before it was said"
        self.stood_still_seconds.append(seconds)


async def test_each_is_looked_at_often_and_none_has_stood_still(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    keepalive, watched = Keepalive(LIMITS), [Watched() for _ in range(96)]
    for one in watched:
        keepalive.watch(one)
    nursery.start_soon(keepalive.run)
    await trio.sleep(100)
    for one in watched:
        assert len(one.looks) >= 100 / LIMITS.pong_seconds * LOOKS - 1
        assert one.stood_still_seconds == []


async def test_the_seconds_in_which_the_process_was_stopped_are_said_to_each_before_it_is_looked_at(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    keepalive, watched = Keepalive(LIMITS), [Watched() for _ in range(96)]
    for one in watched:
        keepalive.watch(one)
    nursery.start_soon(keepalive.run)
    await wait_all_tasks_blocked()
    mock_clock.jump(40)
    await wait_all_tasks_blocked()
    for one in watched:
        (seconds,) = one.stood_still_seconds
        assert 39 < seconds < 40
    assert sum(len(one.looks) for one in watched) == 6  # one turn of sixteen
