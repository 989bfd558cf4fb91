"""A client's messages are counted over ten seconds, in little memory."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.delivery.session.message_rate import MessageRate


@given(st.floats(0, 1e6), st.lists(st.one_of(st.just(0.0), st.floats(0, 0.3), st.floats(0, 30)), max_size=200))
def test_it_counts_what_came_in_the_last_ten_seconds_give_or_take_a_tenth(begin: float, pauses: list[float]) -> None:
    rate, times, now = MessageRate(), list[float](), begin
    for pause in pauses:
        now += pause
        times.append(now)
        counted = rate.count(now)
        assert sum(now - time < 9.9 - 1e-6 for time in times) <= counted <= sum(now - time <= 10 + 1e-6 for time in times)


def test_what_came_nine_and_nine_tenths_seconds_ago_counts_and_what_came_ten_ago_does_not() -> None:
    rate = MessageRate()
    assert [rate.count(now) for now in (0.05, 9.94, 9.96, 10.04, 19.96)] == [1, 2, 3, 3, 2]


def test_a_thousand_messages_cost_a_socket_less_than_half_a_kilobyte() -> None:
    tracemalloc.start()
    try:
        rate = MessageRate()
        for n in range(1000):
            rate.count(5.0 + n / 100)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rate.count(15.0) > 900
    assert held < 512
