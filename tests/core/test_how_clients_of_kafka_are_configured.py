"""What each of our clients of Kafka is given, what an operator may change of it, and what nobody may."""

from __future__ import annotations

import pytest

from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.settings.model import KafkaSettings

MAKERS = ["consumer", "producer", "admin"]


def config_of(kind: str, **properties: str) -> dict[str, object]:
    """Return what a client is given, with `_` for `.` in the names of an operator's properties."""
    named = {name.replace("_", "."): value for name, value in properties.items()}
    config: dict[str, object] = getattr(ClientConfig(KafkaSettings(bootstrap_servers="kafka1:9092", properties=named)), kind)()
    return config


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.promise("p-brokers-tried-again")
def test_a_broker_that_is_away_is_tried_again_after_a_pause_that_an_operator_may_change(kind: str) -> None:
    pauses = ("reconnect.backoff.ms", "reconnect.backoff.max.ms")
    assert [config_of(kind)[name] for name in pauses] == [100, 2_000]
    changed = config_of(kind, reconnect_backoff_ms="500", reconnect_backoff_max_ms="5000")
    assert [changed[name] for name in pauses] == ["500", "5000"]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("consumer", "group.id", "kafka_chat"),
        ("consumer", "isolation.level", "read_committed"),
        ("consumer", "auto.offset.reset", "error"),
        ("consumer", "enable.auto.commit", False),
        ("consumer", "allow.auto.create.topics", False),
        ("admin", "allow.auto.create.topics", False),
        ("admin", "enable.sparse.connections", False),
        ("producer", "enable.sparse.connections", False),
        ("producer", "bootstrap.servers", "kafka1:9092"),
    ],
)
def test_what_carries_a_promise_stays_whatever_the_properties_say(kind: str, name: str, value: object) -> None:
    assert config_of(kind, **{name.replace(".", "_"): "another"})[name] == value
