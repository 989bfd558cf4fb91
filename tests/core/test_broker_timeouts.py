"""Timeouts of brokers follow their measured response times: 5 s before any, and never more than 10 s."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.delivery.timeouts import MOST_SECONDS, UNMEASURED_SECONDS, WRITE_SECONDS, BrokerTimeouts


def measured(*seconds: float) -> BrokerTimeouts:
    timeouts = BrokerTimeouts()
    for took in seconds:
        timeouts.took(took)
    return timeouts


@pytest.mark.promise("p-brokers-measured")
def test_before_anything_is_measured_it_is_five_seconds():
    timeouts = BrokerTimeouts()
    assert timeouts.typical_seconds is None
    assert timeouts.answer_seconds == timeouts.ping_seconds == timeouts.page_seconds == timeouts.request_seconds == UNMEASURED_SECONDS == 5


@pytest.mark.parametrize(
    ("typical", "answer", "request_", "again"),
    [(0.002, 3, 5, 0.15), (0.1, 3, 5, 0.3), (0.2, 4, 5, 0.6), (0.3, 6, 7.5, 0.9), (0.5, 10, 10, 1.5), (4.0, 10, 10, 1.5)],
)
def test_the_farther_they_are_the_longer_they_are_given(typical: float, answer: float, request_: float, again: float):
    timeouts = measured(*[typical] * 9)
    assert (timeouts.answer_seconds, timeouts.request_seconds) == pytest.approx((answer, request_))
    assert timeouts.again_seconds == pytest.approx(again)


def test_a_first_answer_for_which_a_connection_had_to_be_made_has_soon_no_weight():
    assert measured(3.0, *[0.002] * 2).typical_seconds == 0.002
    assert measured(*[0.5] * 20, *[0.002] * 5).typical_seconds == 0.002  # brokers that moved


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
@pytest.mark.promise("p-brokers-measured")
def test_no_brokers_are_given_more_than_ten_seconds_or_less_than_a_record_that_is_written_takes(took: list[float]):
    timeouts = measured(*took)
    for seconds in (timeouts.answer_seconds, timeouts.ping_seconds, timeouts.page_seconds, timeouts.request_seconds):
        assert 0 < seconds <= MOST_SECONDS == 10
    assert timeouts.again_seconds < timeouts.answer_seconds
    assert timeouts.write_by_seconds + WRITE_SECONDS == timeouts.request_seconds
    assert timeouts.write_by_seconds >= 1.5
