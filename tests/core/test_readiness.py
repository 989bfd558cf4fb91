"""`/ready` names partitions without a leader and those that a transaction blocks, however many there are."""

from __future__ import annotations

import pytest

from kafka_chat.readiness import TOLD, held_notices, leaderless_notices


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
    assert len(notices) == TOLD + 1
    assert notices[-1] == f"{50 * 1000 - TOLD} more partitions have no leader"


def test_partitions_that_are_held_up_are_named_with_their_offset_and_many_are_a_number():
    assert held_notices({}) == []
    assert held_notices({("b", 0): 7, ("a", 10): 3, ("a", 2): 1}) == [
        "a/2 is held up by an open transaction at offset 1; its messages wait until that ends",
        "a/10 is held up by an open transaction at offset 3; its messages wait until that ends",
        "b/0 is held up by an open transaction at offset 7; its messages wait until that ends",
    ]
    notices = held_notices({("a", number): 1 for number in range(100)})
    assert len(notices) == TOLD + 1
    assert notices[-1] == f"{100 - TOLD} more partitions are held up by open transactions"
