"""The time limits of a client are kept, and do not count time in which the process stood still."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from kafka_chat.settings.model import Limits
from kafka_chat.web.server.time_limits import REQUEST_SECONDS, Due, TimeLimits

LIMITS = Limits(ping_seconds=25.0, pong_seconds=10.0)
BODY_SECONDS = 30.0


def due(times: TimeLimits, *, acknowledged_at: float = 0.0) -> Due:
    return times.due(trio.current_time(), LIMITS, acknowledged_at=acknowledged_at, request_seconds=BODY_SECONDS)


@pytest.fixture
def times(mock_clock: MockClock) -> TimeLimits:
    """Those of a connection that has just begun."""
    mock_clock.jump(1_000)
    return TimeLimits()


async def test_nothing_is_due_of_a_connection_that_waits_for_nothing(times: TimeLimits, mock_clock: MockClock):
    assert not times.heard_at
    mock_clock.jump(10_000)
    assert due(times) is Due.NOTHING


@pytest.mark.parametrize("seconds", [REQUEST_SECONDS, 75.0])
async def test_a_request_is_due_once_its_time_is_over(times: TimeLimits, mock_clock: MockClock, seconds: float):
    times.expect_request(seconds)
    mock_clock.jump(seconds - 0.01)
    assert due(times) is Due.NOTHING
    mock_clock.jump(0.02)
    assert due(times) is Due.REQUEST
    times.expect_request(seconds)  # it has begun meanwhile
    assert due(times) is Due.NOTHING


async def test_of_a_request_that_is_there_its_body_is_due_and_no_further_request(times: TimeLimits, mock_clock: MockClock):
    times.expect_request()
    times.begin_request()
    mock_clock.jump(BODY_SECONDS - 0.01)
    assert due(times) is Due.NOTHING
    mock_clock.jump(0.02)
    assert due(times) is Due.BODY
    times.expect_request()
    assert due(times) is Due.NOTHING


async def test_nothing_is_due_of_a_connection_that_ends(times: TimeLimits, mock_clock: MockClock):
    times.expect_request()
    times.expect_nothing()
    mock_clock.jump(10_000)
    assert due(times) is Due.NOTHING


async def test_a_websocket_is_pinged_first_after_half_a_time_or_a_whole_one_and_then_once_in_each(times: TimeLimits, mock_clock: MockClock):
    times.begin_request()
    times.begin_pings(LIMITS)
    pings = []
    begun = trio.current_time()
    for _ in range(1_000):
        mock_clock.jump(0.1)
        if due(times) is Due.PING:
            pings.append(trio.current_time() - begun)
        times.heard_at = trio.current_time()
    assert LIMITS.ping_seconds / 2 <= pings[0] <= LIMITS.ping_seconds + 0.2
    assert [round(after - before) for before, after in pairwise(pings)] == [25] * (len(pings) - 1)
    assert len(pings) >= 3


@pytest.mark.parametrize("sign", ["it says something", "its machine acknowledges something"])
async def test_a_pong_is_due_where_a_client_gives_no_sign_of_life(times: TimeLimits, mock_clock: MockClock, sign: str):
    times.begin_pings(LIMITS)
    mock_clock.jump(LIMITS.ping_seconds + LIMITS.pong_seconds - 0.01)
    assert due(times) is Due.PING
    mock_clock.jump(0.02)
    assert due(times) is Due.PONG
    if sign == "it says something":
        times.heard_at = trio.current_time()
        assert due(times) is Due.NOTHING
    else:
        assert due(times, acknowledged_at=trio.current_time()) is Due.NOTHING


async def test_a_websocket_that_closes_is_not_pinged_and_no_pong_is_due(times: TimeLimits, mock_clock: MockClock):
    times.begin_pings(LIMITS)
    times.pinged = False
    mock_clock.jump(10_000)
    assert due(times) is Due.NOTHING


@pytest.mark.parametrize("begin", ["expect_request", "begin_request", "begin_pings"])
async def test_seconds_in_which_the_process_stood_still_count_for_nothing(times: TimeLimits, mock_clock: MockClock, begin: str):
    getattr(times, begin)(*([LIMITS] if begin == "begin_pings" else []))
    mock_clock.jump(1_000)
    times.stood_still(1_000)
    assert due(times) is Due.NOTHING
    mock_clock.jump(BODY_SECONDS + LIMITS.pong_seconds)
    assert due(times) is not Due.NOTHING


async def test_who_is_heard_while_the_process_stood_still_is_not_heard_ahead_of_the_clock(times: TimeLimits, mock_clock: MockClock):
    times.begin_pings(LIMITS)
    times.stood_still(1_000)
    assert times.heard_at == trio.current_time()
