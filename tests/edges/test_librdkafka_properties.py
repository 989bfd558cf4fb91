"""The properties that librdkafka has, and what it says of wrong ones, are what our settings rest on."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

import pytest
from confluent_kafka import KafkaException, Producer

from kafka_chat.errors import SettingsError
from kafka_chat.kafka.properties_check import properties_problem
from kafka_chat.settings.kafka_properties import OPEN_PROPERTIES, REFUSED_PROPERTIES
from kafka_chat.settings.sources import load_settings

# Taken by confluent-kafka's Python layer, which librdkafka never sees.
PYTHON = {"logger", "on_delivery", "on_commit", "default.topic.config"}


@pytest.mark.parametrize("name", sorted((OPEN_PROPERTIES | REFUSED_PROPERTIES) - PYTHON))
def test_librdkafka_knows_every_property_that_we_name(name: str) -> None:
    # A value that hardly any property takes: what is asked for here is the name.
    said = ""
    try:
        Producer({name: "kafka_chat"})
    except (KafkaException, TypeError, ValueError) as error:
        said = str(error)
    assert "No such configuration property" not in said


def test_an_unknown_property_is_found() -> None:
    assert properties_problem({"sasl.passwrd": "x"}) == 'No such configuration property: "sasl.passwrd"'


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
