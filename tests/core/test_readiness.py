"""`/ready` tells of partitions without a leader, however many there are."""

from __future__ import annotations

import pytest

from kafka_chat.readiness import LEADERLESS_TOLD, leaderless_notices


def test_few_are_named_in_order():
    assert leaderless_notices({"b": frozenset({1}), "a": frozenset({10, 2})}) == [
        "a/2 has no leader; its messages wait",
        "a/10 has no leader; its messages wait",
        "b/1 has no leader; its messages wait",
    ]
    assert leaderless_notices({}) == []


@pytest.mark.promise("p-leaderless")
def test_of_many_some_are_named_and_the_rest_is_a_number():
    notices = leaderless_notices({f"topic{number:04}": frozenset(range(50)) for number in range(1000)})
    assert notices[0] == "topic0000/0 has no leader; its messages wait"
    assert len(notices) == LEADERLESS_TOLD + 1
    assert notices[-1] == f"{50 * 1000 - LEADERLESS_TOLD} more partitions have no leader"
