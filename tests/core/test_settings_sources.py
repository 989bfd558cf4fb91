"""Settings come from the file, then from the environment, then from flags."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import pytest

from kafka_chat.errors import SettingsError
from kafka_chat.settings.keys import MAPPINGS, keys
from kafka_chat.settings.model import KafkaSettings, Settings
from kafka_chat.settings.sources import load_settings, variable, with_embedded_broker

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(*, text: str | None = None, environ: dict[str, str] | None = None, flags: dict[str, object] | None = None) -> Settings:
    if text is not None:
        Path("config.yaml").write_text(text)
    return load_settings(config_file=None, environ=environ or {}, flags=flags or {})


def test_without_any_source_the_settings_are_the_defaults() -> None:
    assert load() == Settings()


def test_a_later_source_comes_before_an_earlier_one() -> None:
    text = "server: {host: 10.0.0.1, port: 1, drain_seconds: 1}"
    environ = {"KAFKA_CHAT_SERVER__HOST": "10.0.0.2", "KAFKA_CHAT_SERVER__PORT": "2"}
    server = load(text=text, environ=environ, flags={"server.port": "3"}).server
    assert (server.host, server.port, server.drain_seconds) == ("10.0.0.2", 3, 1.0)


def test_a_named_file_is_read_instead_of_the_one_in_the_working_directory() -> None:
    Path("config.yaml").write_text("server: {port: 1}")
    Path("other.yaml").write_text("server: {host: 10.0.0.1}")
    server = load_settings(config_file=Path("other.yaml"), environ={}, flags={}).server
    assert (server.host, server.port) == ("10.0.0.1", 8001)


def test_a_named_file_that_is_missing_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"^other\.yaml cannot be read: No such file or directory$"):
        load_settings(config_file=Path("other.yaml"), environ={}, flags={})


def test_a_directory_is_no_configuration_file() -> None:
    Path("config.yaml").mkdir()
    with pytest.raises(SettingsError, match=r"^config\.yaml cannot be read: Is a directory$"):
        load()


def test_only_variables_with_two_underscores_are_ours() -> None:
    kubernetes = {
        "KAFKA_CHAT_PORT": "tcp://10.0.0.1:8001",
        "KAFKA_CHAT_SERVICE_HOST": "10.0.0.1",
        "KAFKA_CHAT": "x",
        "PORT": "1",
        "A__B": "1",
        "KAFKA_CHAT_SERVER_PORT": "tcp://10.0.0.1:8001",  # Kubernetes, of a Service kafka-chat-server
    }
    assert load(environ=kubernetes) == Settings()


def test_every_key_has_a_variable() -> None:
    values = {
        "server.host": ("0.0.0.0", "0.0.0.0"),
        "server.port": ("0", 0),
        "server.workers": ("1", 1),
        "server.drain_seconds": ("2.5", 2.5),
        "kafka.bootstrap_servers": (" a:1,b:2 ", "a:1,b:2"),
        "kafka.embedded": ("False", False),
        "chats.prefix": ("chat-", "chat-"),
        "chats.default": ("one, chat-two ,one", ("one", "two")),
        "subscriptions.topic": ("who", "who"),
        "sending.enabled": ("true", True),
        "access.hosts": ("Chat.Example.,inside", ("chat.example", "inside")),
        "access.origins": ("https://a.example,https://b.example:8443", ("https://a.example", "https://b.example:8443")),
        "auth.everyone.read": ("global,room*", ("global", "room*")),
        "auth.everyone.send": ("global", ("global",)),
        "auth.everyone.create": ("own.{user}.*", ("own.{user}.*",)),
        "auth.anonymous": ("global", ("global",)),
        "auth.cookie": ("chat-token", "chat-token"),
        "auth.query": ("true", True),
        "auth.leeway_seconds": ("10", 10.0),
        "auth.max_lifetime_hours": ("0.5", 0.5),
        "limits.message_bytes": ("2048", 2048),
        "limits.client_message_bytes": ("2048", 2048),
        "limits.chats_per_user": ("7", 7),
        "limits.subscription_records_per_second": ("7", 7),
        "limits.absent_chats": ("7", 7),
        "limits.catching_up": ("70", 70),
        "limits.connections": ("7", 7),
        "limits.idle_seconds": ("7", 7.0),
        "limits.write_seconds": ("7", 7.0),
        "limits.ping_seconds": ("7", 7.0),
        "limits.pong_seconds": ("7", 7.0),
        "memory.bytes": ("65536", 65536),
        "tail.consumers": ("2", 2),
        "pages.readers": ("1", 1),
        "history.cache": ("public", "public"),
        "history.cache_seconds": ("60", 60),
    }
    assert set(values) | set(MAPPINGS) == set(keys())
    issuer = {"ISSUER": "i", "AUDIENCE": "a", "JWKS_URL": "https://id.example/"}  # without one there is nothing else of `auth`
    one_issuer = {f"KAFKA_CHAT_AUTH__ISSUERS__MAIN__{name}": text for name, text in issuer.items()}
    without_cache = {key: text for key, (text, _) in values.items() if key != "history.cache"}  # which `auth.issuers` decide
    settings = load(environ={variable(key): text for key, text in without_cache.items()} | one_issuer)
    assert load(environ={variable("history.cache"): "public"}).history.cache == "public"
    for key in without_cache:
        assert reduce(getattr, key.split("."), settings) == values[key][1], key


@pytest.mark.parametrize("nothing", ["", "null"])
def test_an_empty_variable_is_nothing_where_nothing_is_allowed(nothing: str) -> None:
    text = "kafka: {bootstrap_servers: 'a:1'}\nlimits: {connections: 5}\nsending: {enabled: true}"
    environ = {
        "KAFKA_CHAT_KAFKA__BOOTSTRAP_SERVERS": nothing,
        "KAFKA_CHAT_LIMITS__CONNECTIONS": nothing,
        "KAFKA_CHAT_SENDING__ENABLED": nothing,
    }
    assert load(text=text, environ=environ) == Settings()


def test_an_empty_variable_is_an_empty_list() -> None:
    assert load(environ={"KAFKA_CHAT_CHATS__DEFAULT": ""}).chats.default == ()


def test_properties_of_all_sources_come_together() -> None:
    text = "kafka:\n  properties:\n    sasl.username: file\n    sasl.password: file\n"
    environ = {
        "KAFKA_CHAT_KAFKA__PROPERTIES__SASL_PASSWORD": "environment",
        "KAFKA_CHAT_KAFKA__PROPERTIES__LOG_LEVEL": "7",
        "KAFKA_CHAT_KAFKA__PROPERTIES__ENABLE_SASL_OAUTHBEARER_UNSECURE_JWT": "true",
    }
    assert load(text=text, environ=environ).kafka.properties == {
        "sasl.username": "file",
        "sasl.password": "environment",
        "log_level": "7",
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
    }


def test_properties_of_the_file_are_what_was_written() -> None:
    text = """
kafka:
  properties:
    sasl.password: 0123
    client.id: 2026-01-31
    socket.keepalive.enable: yes
    socket.timeout.ms: 10_000
    sasl.username: "true"
"""
    assert load(text=text).kafka.properties == {
        "sasl.password": "0123",
        "client.id": "2026-01-31",
        "socket.keepalive.enable": "true",
        "socket.timeout.ms": "10_000",
        "sasl.username": "true",
    }


def test_sections_that_are_commented_out_are_defaults() -> None:
    assert load(text="server:\n#  port: 1\nkafka:\n  properties:\nlimits: {}\n") == Settings()


def test_chats_may_be_written_as_numbers() -> None:
    assert load(text="chats: {default: [1, 0x2, kafka.chat.three]}").chats.default == ("1", "0x2", "three")


def test_origins_are_kept_as_browsers_write_them() -> None:
    origins = "HTTPS://Chat.Example:443,http://a.example:80,http://a.example:443,https://[::1]:8443,null,chrome-extension://abc"
    assert load(environ={"KAFKA_CHAT_ACCESS__ORIGINS": origins}).access.origins == (
        "https://chat.example",
        "http://a.example",
        "http://a.example:443",
        "https://[::1]:8443",
        "null",
        "chrome-extension://abc",
    )


@pytest.mark.parametrize("address", ["localhost", "::1", "fe80::1%eth0", "chat.example.", "0.0.0.0"])
def test_names_and_addresses_are_hosts(address: str) -> None:
    assert load(flags={"server.host": address}).server.host == address


@pytest.mark.parametrize("brokers", ["a:9092", "a:1, b:2", "[::1]:9092", "PLAINTEXT://a.example:9093,b:1"])
def test_brokers_are_named_as_kafka_names_them(brokers: str) -> None:
    assert load(flags={"kafka.bootstrap_servers": brokers}).kafka.bootstrap_servers == brokers


def test_a_protocol_before_a_broker_is_that_of_the_properties() -> None:
    text = "kafka: {properties: {security.protocol: sasl_ssl}}"
    brokers = "SASL_SSL://a.example:9093"
    assert load(text=text, flags={"kafka.bootstrap_servers": brokers}).kafka.bootstrap_servers == brokers


def test_a_flag_that_names_brokers_replaces_the_embedded_one() -> None:
    settings = load(environ={"KAFKA_CHAT_KAFKA__EMBEDDED": "true"}, flags={"kafka.bootstrap_servers": "a:1"})
    assert settings.kafka == KafkaSettings(bootstrap_servers="a:1", embedded=False)


def test_a_flag_for_the_embedded_broker_replaces_the_named_ones() -> None:
    settings = load(environ={"KAFKA_CHAT_KAFKA__BOOTSTRAP_SERVERS": "a:1"}, flags={"kafka.embedded": True})
    assert settings.kafka == KafkaSettings(embedded=True)


def test_the_embedded_broker_can_be_taken_for_want_of_another() -> None:
    assert with_embedded_broker(Settings()).kafka == KafkaSettings(embedded=True)


def test_the_file_in_the_repository_has_every_key_with_its_default() -> None:
    text = (REPOSITORY / "config.yaml").read_text()
    assert load(text=text) == Settings()
    for key in keys():
        section, name, *_ = key.split(".")  # what is under `auth.everyone` stands in its line
        under = text.split(f"\n{section}:\n", 1)[1].split("\n\n", 1)[0]
        assert f"\n  {name}: " in f"\n{under}", key
        line = under.split(f"  {name}: ")[0].rstrip("\n").rsplit("\n", 1)[-1]
        assert line.startswith("  #"), f"{key} has no comment"
