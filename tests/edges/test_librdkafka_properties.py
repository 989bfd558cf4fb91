"""What our settings assume of librdkafka's properties and of its errors for wrong ones."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from kafka_chat.errors import SettingsError
from kafka_chat.kafka.properties_check import properties_problem
from kafka_chat.settings.kafka_properties import REFUSED_PROPERTIES, PropertyProblem
from kafka_chat.settings.sources import load_settings

# Taken by confluent-kafka's Python layer, which librdkafka never sees.
PYTHON = {"logger", "on_delivery", "on_commit", "default.topic.config"}


@pytest.mark.parametrize("name", sorted((REFUSED_PROPERTIES | {"log_level"}) - PYTHON))
def test_librdkafka_knows_every_property_that_we_name(name: str) -> None:
    # A value that hardly any property takes: what is asked for here is the name.
    said = ""
    try:
        Producer({name: "kafka_chat"})
    except (KafkaException, TypeError, ValueError) as error:
        said = str(error)
    assert "No such configuration property" not in said


def test_an_unknown_property_is_found() -> None:
    problem = properties_problem({"sasl.passwrd": "x"})
    assert problem is not None
    assert (problem.name, problem.unknown) == ("sasl.passwrd", True)


def test_no_properties_are_no_problem() -> None:
    assert properties_problem({}) is None


GOOD: dict[str, Mapping[str, str]] = {
    "TLS": {"security.protocol": "ssl", "enable.ssl.certificate.verification": "false"},
    "SASL PLAIN": {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "p"},
    "SASL SCRAM": {"security.protocol": "sasl_plaintext", "sasl.mechanisms": "SCRAM-SHA-512", "sasl.username": "u", "sasl.password": "p"},
    "OAUTHBEARER": {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "chat",
        "sasl.oauthbearer.client.secret": "s",
        "sasl.oauthbearer.token.endpoint.url": "https://idp.example/token",
    },
    "OAUTHBEARER for tests": {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER",
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
    },
    "consumer's and producer's": {"check.crcs": "true", "compression.type": "zstd", "partitioner": "murmur2_random", "client.rack": "a"},
    "debug": {"debug": "broker,security", "log_level": "7"},
}


@pytest.mark.parametrize("properties", GOOD.values(), ids=GOOD)
def test_good_properties_are_no_problem(properties: Mapping[str, str]) -> None:
    assert properties_problem(properties) is None


BAD: dict[str, Mapping[str, str]] = {
    "security.protocol": {"security.protocol": "bogus"},
    "socket.timeout.ms": {"socket.timeout.ms": "1"},
    "socket.keepalive.enable": {"socket.keepalive.enable": "maybe"},
    "ssl.ca.location": {"security.protocol": "ssl", "ssl.ca.location": "/nowhere/ca.pem"},
    "ssl.key.pem": {"security.protocol": "ssl", "ssl.key.pem": "hunter2"},
    "ssl.cipher.suites": {"security.protocol": "ssl", "ssl.cipher.suites": "hunter2"},
    "sasl.oauthbearer.method": {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "default"},
    "sasl.mechanism": {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"},
    "debug": {"debug": "hunter2"},
}


@pytest.mark.parametrize(("name", "properties"), BAD.items(), ids=BAD)
def test_a_bad_property_is_told_by_its_name(name: str, properties: Mapping[str, str]) -> None:
    environ = {f"KAFKA_CHAT_KAFKA__PROPERTIES__{name.replace('.', '_').upper()}": value for name, value in properties.items()}
    with pytest.raises(SettingsError) as caught:
        load_settings(config_file=None, environ=environ, flags={}, check_properties=properties_problem)
    variable = f"KAFKA_CHAT_KAFKA__PROPERTIES__{name.replace('.', '_').upper()}"
    assert str(caught.value).startswith(f"{variable}: kafka.properties.{name} is ")
    assert "\n" not in str(caught.value)


NUMBERS = ["60000x", "60 000", "60_000", "6e4", "60000.0", "0x10", "060000", "4295027296", "9" * 5000, "60000 ", " 60000"]


@pytest.mark.parametrize("value", NUMBERS)
def test_a_number_with_something_else_in_it_is_refused_though_librdkafka_takes_what_it_understands(value: str) -> None:
    assert properties_problem({"socket.timeout.ms": value}) == PropertyProblem(
        "a whole number is needed, 2147483647 at most", "socket.timeout.ms"
    )


@pytest.mark.parametrize("name", ["client.id", "client.rack", "sasl.username", "sasl.password", "broker.version.fallback"])
def test_text_may_begin_as_a_number_does(name: str) -> None:
    assert properties_problem({name: "2.8x"}) is None


def test_a_file_that_cannot_be_read_is_told_with_the_reason(tmp_path: Path) -> None:
    problem = properties_problem({"security.protocol": "ssl", "ssl.ca.location": str(tmp_path / "ca.pem")})
    assert problem == PropertyProblem("a file that can be read is needed (No such file or directory)", "ssl.ca.location")
    (tmp_path / "ca.pem").write_text("no certificate")
    problem = properties_problem({"security.protocol": "ssl", "ssl.ca.location": str(tmp_path / "ca.pem")})
    assert problem is not None
    assert problem.sentence.startswith("librdkafka says: ssl.ca.location failed: ")


def test_what_does_not_go_together_with_what_we_set_is_refused_at_start() -> None:
    problem = properties_problem({"reconnect.backoff.ms": "5000"})  # ours is 2,000 at most, librdkafka's 10,000
    assert problem is not None
    assert problem.name == "reconnect.backoff.ms"
    assert "`reconnect.backoff.max.ms` must be >=" in problem.sentence
    assert properties_problem({"reconnect.backoff.ms": "5000", "reconnect.backoff.max.ms": "5000"}) is None


def test_a_property_is_told_by_the_name_that_the_operator_has_used() -> None:
    assert properties_problem({"compression.type": "nix"}) == PropertyProblem(
        "none, gzip, snappy, lz4 or zstd is needed", "compression.type"
    )


TOGETHER: dict[str, Mapping[str, str]] = {
    "a mechanism that this build lacks": {"security.protocol": "SASL_SSL"},
    "no password": {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"},
    "no token endpoint": {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc"},
    "AWS without its method": {"sasl.oauthbearer.metadata.authentication.type": "aws_iam"},
}


@pytest.mark.parametrize("properties", TOGETHER.values(), ids=TOGETHER)
def test_properties_that_do_not_go_together_are_a_problem(properties: Mapping[str, str]) -> None:
    assert properties_problem(properties) is not None


def test_checking_does_not_wait_for_a_token_endpoint() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/token"
        began = time.monotonic()
        properties_problem({**GOOD["OAUTHBEARER"], "sasl.oauthbearer.token.endpoint.url": url})
        assert time.monotonic() - began < 5
        silent.settimeout(0)
        with pytest.raises(BlockingIOError):
            silent.accept()
