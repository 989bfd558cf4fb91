"""The reason why brokers cannot be reached is reported once, without the parts that change from one error to the next."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from kafka_chat.kafka.reasons import Reasons

REFUSED = "kafka1:9092/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused"
DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN)


def reasons(*said: str) -> Reasons:
    taken = Reasons()
    for one in said:
        taken.take(KafkaError(KafkaError._TRANSPORT, one))
    taken.take(DOWN)
    return taken


def test_an_error_that_comes_again_is_said_once():
    again = " (after 3ms in state CONNECT, 12 identical error(s) suppressed)"
    assert str(reasons(REFUSED + " (after 0ms in state CONNECT)", REFUSED + again)) == REFUSED


@pytest.mark.parametrize("said", [(), ("kafka1:9092: Send failed: Broken pipe (after 0ms in state UP)",)])
def test_brokers_that_close_each_connection_may_want_tls_or_a_password(said: tuple[str, ...]):
    assert "may want TLS or a password" in str(reasons(*said))


def test_what_is_forgotten_is_not_said_any_more():
    taken = reasons(REFUSED)
    taken.forget()
    assert str(taken) == ""
