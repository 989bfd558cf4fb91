"""An error in settings is one sentence: key, value, source, what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kafka_chat.errors import SettingsError
from kafka_chat.settings.model import KafkaSettings, Settings
from kafka_chat.settings.sources import load_settings, with_embedded_broker


def said(*, file: Path | None = None, environ: dict[str, str] | None = None, flags: dict[str, object] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(config_file=file, environ=environ or {}, flags=flags or {})
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


FILES = {
    "server:\n  port: lots": 'config.yaml, line 2: server.port is "lots"; a whole number from 0 to 65535 is needed',
    "server:\n  port: 65536": "config.yaml, line 2: server.port is 65536; a whole number from 0 to 65535 is needed",
    "server:\n  port: [1, 2]": "config.yaml, line 2: server.port is [1, 2]; a whole number from 0 to 65535 is needed",
    "server:\n  port: {}": "config.yaml, line 2: server.port is {}; a whole number from 0 to 65535 is needed",
    "server:\n  port:": "config.yaml, line 2: server.port is nothing; a whole number from 0 to 65535 is needed",
    "server:\n  port: '1'": 'config.yaml, line 2: server.port is "1"; a whole number from 0 to 65535 is needed',
    "server:\n  prot: 1": "config.yaml, line 2: there is no setting server.prot; did you mean server.port?",
    "port: 1": "config.yaml, line 1: there is no setting port; did you mean server.port?",
    "server:\n  colour: 1": "config.yaml, line 2: there is no setting server.colour; server has host, port, workers, drain_seconds",
    "colour: 1": "config.yaml, line 1: there is no setting colour; see the sections server, kafka, chats, subscriptions, sending, "
    "access, auth, limits, memory, tail, pages, history",
    "server: 8001": "config.yaml, line 1: server has a value; the keys host, port, workers, drain_seconds are needed under it",
    "memory: {bytes: 1.5}": "config.yaml, line 1: memory.bytes is 1.5; a whole number from 65536 is needed",
    "limits: {write_seconds: .inf}": "config.yaml, line 1: limits.write_seconds is .inf; a number above 0 and at most 86400 is needed",
    "limits: {write_seconds: .nan}": "config.yaml, line 1: limits.write_seconds is .nan; a number above 0 and at most 86400 is needed",
    "limits: {connections: 0}": "config.yaml, line 1: limits.connections is 0; a whole number from 1, or nothing, is needed",
    "sending: {enabled: 1}": "config.yaml, line 1: sending.enabled is 1; true or false, or nothing, is needed",
    "chats: {default: a}": 'config.yaml, line 1: chats.default is "a"; a list of strings, such as [one, two], is needed',
    "chats: {default: [a, true]}": "config.yaml, line 1: chats.default is [a, true]; a list of strings, such as [one, two], is needed",
    "chats: {default: [a b]}": "config.yaml, line 1: chats.default is 'a b'; a chat is made of letters A-Z a-z, digits, dot, underscore "
    "and hyphen",
    "chats: {prefix: a/b}": 'config.yaml, line 1: chats.prefix is "a/b"; a name of 1 to 200 of the characters A-Z a-z 0-9 . _ - is needed',
    'chats: {prefix: "a\\n"}': 'config.yaml, line 1: chats.prefix is "a\\n"; a name of 1 to 200 of the characters A-Z a-z 0-9 '
    ". _ - is needed",
    "chats: {prefix: kafka}": 'the default: subscriptions.topic is "kafka_chat-subscriptions", which begins with chats.prefix, "kafka" '
    "(config.yaml, line 1); a topic that is not a chat is needed",
    "access: {hosts: ['a.example:8001']}": 'config.yaml, line 1: access.hosts has "a.example:8001"; a name such as chat.example (in ASCII, '
    "without a port), or * for any, is needed",
    "access: {hosts: ['']}": 'config.yaml, line 1: access.hosts has ""; a name such as chat.example (in ASCII, '
    "without a port), or * for any, is needed",
    "access: {origins: ['https://a.example/']}": 'config.yaml, line 1: access.origins has "https://a.example/"; an origin such as '
    "https://chat.example (in ASCII, without a path), or * for any, is needed",
    "access: {origins: ['https://caf\u00e9.example']}": 'config.yaml, line 1: access.origins has "https://caf\u00e9.example"; '
    "an origin such as https://chat.example (in ASCII, without a path), or * for any, is needed",
    "limits: {ping_seconds: 5}": "the default: limits.pong_seconds is 10, which is more than limits.ping_seconds, 5 (config.yaml, line 1)",
    "kafka: {bootstrap_servers: a}": 'config.yaml, line 1: kafka.bootstrap_servers is "a"; HOST:PORT, or several separated '
    "by commas, is needed",
    "kafka: {bootstrap_servers: 'a:1,'}": 'config.yaml, line 1: kafka.bootstrap_servers is "a:1,"; HOST:PORT, or several separated '
    "by commas, is needed",
    "kafka: {bootstrap_servers: 'a:70000'}": 'config.yaml, line 1: kafka.bootstrap_servers is "a:70000"; HOST:PORT, or several separated '
    "by commas, is needed",
    "kafka: {bootstrap_servers: 'http://a:1'}": 'config.yaml, line 1: kafka.bootstrap_servers is "http://a:1"; HOST:PORT, or several '
    "separated by commas, is needed",
    "kafka: {bootstrap_servers: 'b:1, SSL://a:1'}": 'config.yaml, line 1: kafka.bootstrap_servers has "SSL://a:1", but '
    'kafka.properties.security.protocol is "plaintext" (the default); one protocol for all brokers is needed, such as '
    "kafka.properties.security.protocol: ssl",
    "kafka: {bootstrap_servers: 'PLAINTEXT://a:1', properties: {security.protocol: SASL_SSL}}": "config.yaml, line 1: "
    'kafka.bootstrap_servers has "PLAINTEXT://a:1", but kafka.properties.security.protocol is "SASL_SSL" (config.yaml, line 1); one '
    "protocol for all brokers is needed, such as kafka.properties.security.protocol: plaintext",
    "kafka: {properties: {socket.timeout.ms: 300}}": 'config.yaml, line 1: kafka.properties.socket.timeout.ms is "300"; at least 10000 is '
    "needed, or brokers that answer slowly are never reached; how long the service waits follows their measured times",
    "history: {cache: pubic}": 'config.yaml, line 1: history.cache is "pubic"; none, private or public is needed',
    "history: {cache: true}": "config.yaml, line 1: history.cache is true; none, private or public is needed",
    "kafka: {embedded: true, bootstrap_servers: 'a:1'}": "config.yaml, line 1: kafka.embedded is true, but config.yaml, line 1 sets "
    'kafka.bootstrap_servers to "a:1"; only one of the two is allowed',
    "kafka: {embedded: true, properties: {security.protocol: ssl}}": 'config.yaml, line 1: kafka.properties.security.protocol is "ssl", '
    "which the embedded broker does not speak; name your brokers in kafka.bootstrap_servers, or remove the property",
    "server:\n  port: 1\n  host: a\n  port: 2": "config.yaml, line 4: server.port is set twice; first on line 2",
    "server:\n  port: 1\nserver.port: 2": "config.yaml, line 3: server.port is set twice; first on line 2",
    "server:\n\tport: 1": "config.yaml, line 2, column 1: a tab, where YAML needs spaces",
    "- server": "config.yaml, line 1: sections such as `server:` with their keys under them are needed",
    "server": "config.yaml, line 1: sections such as `server:` with their keys under them are needed",
    "a: [1": "config.yaml, line 1, column 6: this is not YAML (something is missing before this); text with special "
    "characters needs quotes",
    "a: &a {b: *a}": "config.yaml, line 1: a.b.b.b.b.b.b.b.b is too deep; a section and its keys are needed",
    "? [a]\n: b": "config.yaml, line 1: a key is a name, not a list or a mapping",
    "a: 1\n---\nb: 2": "config.yaml, line 2, column 1: this is not YAML (but found another document); text with "
    "special characters needs quotes",
    "a: x\0y": "config.yaml has a control character, which YAML does not allow",
}


@pytest.mark.parametrize(("text", "sentence"), FILES.items())
def test_a_wrong_file_is_told_with_its_line(text: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(text)
    assert said() == sentence


@pytest.mark.parametrize("bracket", ["[", "{"])
def test_a_file_of_nothing_but_brackets_is_told(bracket: str, tmp_path: Path) -> None:
    file = tmp_path / "deep.yaml"
    file.write_text(bracket * 100_000)
    assert said(file=file) == f"{file} is nested too deeply; settings need at most 8 levels"


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"chats:\n  prefix: caf\xe9.")
    assert said(file=file) == f"{file} is not UTF-8 (byte 20); save it as UTF-8"


VARIABLES = {
    ("KAFKA_CHAT_SERVER__PORT", "lots"): 'KAFKA_CHAT_SERVER__PORT: server.port is "lots"; a whole number from 0 to 65535 is needed',
    ("KAFKA_CHAT_SERVER__PORT", "\udcff"): 'KAFKA_CHAT_SERVER__PORT: server.port is "\udcff"; a whole number from 0 to 65535 is needed',
    ("KAFKA_CHAT_SERVER_PORT", "1"): "KAFKA_CHAT_SERVER_PORT: there is no such setting; did you mean KAFKA_CHAT_SERVER__PORT?",
    ("KAFKA_CHAT_KAFKA_BOOTSTRAP_SERVERS", "a:1"): "KAFKA_CHAT_KAFKA_BOOTSTRAP_SERVERS: there is no such setting; did you mean "
    "KAFKA_CHAT_KAFKA__BOOTSTRAP_SERVERS?",
    ("KAFKA_CHAT_SERVER__PORT", ""): 'KAFKA_CHAT_SERVER__PORT: server.port is ""; a whole number from 0 to 65535 is needed',
    ("KAFKA_CHAT_KAFKA__EMBEDDED", "yes"): 'KAFKA_CHAT_KAFKA__EMBEDDED: kafka.embedded is "yes"; true or false, or nothing, is needed',
    ("KAFKA_CHAT_LIMITS__WRITE_SECONDS", "inf"): 'KAFKA_CHAT_LIMITS__WRITE_SECONDS: limits.write_seconds is "inf"; a number above 0 and at '
    "most 86400 is needed",
    ("KAFKA_CHAT_CHATS__DEFAULT", "a,,b"): "KAFKA_CHAT_CHATS__DEFAULT: chats.default is empty; a chat such as room1, or its topic "
    "kafka.chat.room1, is needed",
    ("KAFKA_CHAT_SERVER__PROT", "1"): "KAFKA_CHAT_SERVER__PROT: there is no such setting; did you mean KAFKA_CHAT_SERVER__PORT?",
    ("KAFKA_CHAT__SERVER__PORT", "1"): "KAFKA_CHAT__SERVER__PORT: there is no such setting; did you mean KAFKA_CHAT_SERVER__PORT?",
    ("KAFKA_CHAT_KAFKA__PROPERTIES", "a=b"): "KAFKA_CHAT_KAFKA__PROPERTIES: each property has its own variable, such as "
    "KAFKA_CHAT_KAFKA__PROPERTIES__SASL_PASSWORD",
    ("KAFKA_CHAT_X__Y", "1"): "KAFKA_CHAT_X__Y: there is no such setting; see the sections server, kafka, chats, subscriptions, sending, "
    "access, auth, limits, memory, tail, pages, history",
}


@pytest.mark.parametrize(("given", "sentence"), VARIABLES.items())
def test_a_wrong_variable_is_told_by_its_name(
    given: tuple[str, str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, value = given
    assert said(environ={name: value}) == sentence


FLAGS = {
    ("server.port", "x"): '--port: server.port is "x"; a whole number from 0 to 65535 is needed',
    (
        "server.host",
        "a b",
    ): '--host: server.host is "a b"; the name or the address of this machine, such as 127.0.0.1 or 0.0.0.0, is needed',
    ("server.host", ""): '--host: server.host is ""; the name or the address of this machine, such as 127.0.0.1 or 0.0.0.0, is needed',
    (
        "kafka.bootstrap_servers",
        "a",
    ): '--bootstrap: kafka.bootstrap_servers is "a"; HOST:PORT, or several separated by commas, is needed',
}


@pytest.mark.parametrize(("given", "sentence"), FLAGS.items())
def test_a_wrong_flag_is_told_by_its_name(given: tuple[str, str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said(flags={given[0]: given[1]}) == sentence


def test_the_embedded_broker_is_not_taken_where_the_settings_are_meant_for_another() -> None:
    settings = Settings(kafka=KafkaSettings(properties={"security.protocol": "SASL_SSL"}))
    with pytest.raises(SettingsError, match="which the embedded broker does not speak"):
        with_embedded_broker(settings)


def test_a_value_that_is_long_is_cut() -> None:
    assert len(said(flags={"server.host": "x" * 10_000})) < 250
