"""How each of our Kafka clients is configured, which properties an operator may change, and which not."""

from __future__ import annotations

import subprocess
import sys

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from kafka_chat.errors import ServiceFailed, SettingsError
from kafka_chat.kafka.connect import ClientConfig, not_made
from kafka_chat.settings.model import KafkaSettings
from tests.support.deadlines import HANG_SECONDS

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
    assert [config_of(kind)[name] for name in pauses] == [100 if kind == "consumer" else 500, 2_000]
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


@pytest.mark.parametrize("kind", MAKERS)
def test_a_shorter_longest_pause_of_an_operator_is_not_below_our_first_one(kind: str) -> None:
    config = config_of(kind, reconnect_backoff_max_ms="300")
    assert int(str(config["reconnect.backoff.ms"])) <= 300


@pytest.mark.parametrize("make", [Consumer, Producer])
def test_a_property_for_one_kind_of_client_is_no_warning_of_the_other_kind_and_hides_none(
    make: type[Consumer | Producer], caplog: pytest.LogCaptureFixture
) -> None:
    properties = {"queue.buffering.max.kbytes": "1000", "check.crcs": "true", "sasl.username": "ann"}
    config = ClientConfig(KafkaSettings(bootstrap_servers="127.0.0.1:1", properties=properties))
    mine = config.consumer() if make is Consumer else config.producer()
    client = make({name: value for name, value in mine.items() if name != "bootstrap.servers"})
    client.poll(0.1)
    assert [record.getMessage() for record in caplog.records if "will be ignored" in record.getMessage()] == []
    assert sum("sasl.username" in record.getMessage() for record in caplog.records) == 1


NO_ROOM = """
import resource
from kafka_chat.errors import ServiceFailed
from kafka_chat.kafka.properties_check import properties_problem

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 4_000_000,) * 2)  # the stack of a thread has eight
try:
    print(properties_problem({"client.id": "ann"}))
except ServiceFailed as error:
    print(error)
"""


def test_want_of_memory_is_not_blamed_on_the_settings() -> None:
    done = subprocess.run([sys.executable, "-c", NO_ROOM], capture_output=True, text=True, timeout=HANG_SECONDS, check=True)
    assert done.stdout.startswith("there is no memory or thread left for Kafka's client"), done


@pytest.mark.parametrize(
    ("why", "kind"),
    [
        ("Failed to create admin client: Failed to create background thread: Cannot allocate memory", ServiceFailed),
        ("Failed to create producer: Failed to create thread: Resource temporarily unavailable (11)", ServiceFailed),
        ("Failed to create producer: ssl.ca.location failed", SettingsError),
    ],
)
def test_a_client_that_is_not_made_is_the_fault_of_the_settings_or_of_the_machine(why: str, kind: type[Exception]) -> None:
    assert type(not_made(KafkaException(KafkaError(KafkaError._FAIL, why)))) is kind
