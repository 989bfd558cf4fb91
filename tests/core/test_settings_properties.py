"""librdkafka's properties are passed through, except those on which promises depend; no secret is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from kafka_chat.errors import SettingsError
from kafka_chat.settings.kafka_properties import REFUSED_PROPERTIES, PropertyProblem, is_secret, property_name, refusal
from kafka_chat.settings.model import KafkaSettings, Settings
from kafka_chat.settings.sources import load_settings

SECRET = "hunter2"


def error_of(*, text: str = "", environ: dict[str, str] | None = None, problem: PropertyProblem | None = None, folder: Path) -> str:
    file = folder / "config.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(config_file=file, environ=environ or {}, flags={}, check_properties=lambda _: problem)
    return str(caught.value).replace(str(file), "config.yaml")


PROMISES = [
    "group.id",
    "isolation.level",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "acks",
    "enable.idempotence",
    "message.timeout.ms",
    "allow.auto.create.topics",
    "enable.partition.eof",
    "transactional.id",
    "test.mock.num.brokers",
    "bootstrap.servers",
    "metadata.broker.list",
    "error_cb",
    "oauthbearer_token_refresh_cb",
    "ssl.certificate.verify_cb",
    "plugin.library.paths",
    "logger",
]


@pytest.mark.parametrize("name", PROMISES)
def test_a_property_that_carries_a_promise_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    sentence = error_of(text=f"kafka:\n  properties:\n    {name}: x", folder=tmp_path)
    assert sentence == f"config.yaml, line 3: kafka.properties may not set {name}: {refusal(name)}"


@pytest.mark.parametrize("name", [*sorted(REFUSED_PROPERTIES), "log_level", "log.thread.name", "sasl.password", "ssl.ca.location"])
def test_every_property_has_a_name_in_the_environment(name: str) -> None:
    assert property_name(name.replace(".", "_").upper()) == name


SECRETS = [
    "sasl.password",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.config",
    "sasl.jaas.config",
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["sasl.username", "sasl.mechanism", "ssl.ca.location", "ssl.key.location", "ssl.ca.pem", "client.id"])
def test_what_is_no_secret_is_shown(name: str) -> None:
    assert not is_secret(name)


def test_settings_are_shown_without_their_secrets() -> None:
    settings = Settings(kafka=KafkaSettings(properties={"sasl.password": SECRET, "sasl.username": "chat"}))
    for shown in (repr(settings), str(settings), f"{settings.kafka}"):
        assert SECRET not in shown
        assert "'sasl.password': '***'" in shown
        assert "'sasl.username': 'chat'" in shown


LEAKS = {
    "under the wrong section": f"kafka: {{sasl.password: {SECRET}}}",
    "under a mistyped name": f"kafka: {{properties: {{sasl.passwrd: [{SECRET}]}}}}",
    "as a list": f"kafka: {{properties: {{sasl.password: [{SECRET}]}}}}",
    "in place of the properties": f"kafka: {{properties: {SECRET}}}",
    "at the top": f"sasl.password: {SECRET}",
    "behind an asterisk": f"kafka: {{properties: {{sasl.password: *{SECRET}}}}}",
    "behind an exclamation mark": f"kafka: {{properties: {{sasl.password: !{SECRET} x}}}}",
    "behind an at sign": f"kafka: {{properties: {{sasl.password: @{SECRET}}}}}",
    "behind a percent sign": f"kafka:\n  properties:\n    sasl.password: %{SECRET}",
    "in an open quote": f"kafka:\n  properties:\n    sasl.password: '{SECRET}",
    "with a bad escape": f'kafka:\n  properties:\n    sasl.password: "\\{SECRET}"',
    "with a control character": f"kafka:\n  properties:\n    sasl.password: {SECRET}\x01",
    "twice": f"kafka:\n  properties:\n    sasl.password: {SECRET}\n    sasl.password: {SECRET}",
    "in a refused one": f"kafka: {{properties: {{group.id: {SECRET}}}}}",
}


@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS)
def test_no_error_shows_a_secret(text: str, tmp_path: Path) -> None:
    assert SECRET not in error_of(text=text, folder=tmp_path, problem=PropertyProblem("of no use", "sasl.passwrd", unknown=True))


def test_what_librdkafka_says_of_a_secret_is_masked(tmp_path: Path) -> None:
    environ = {"KAFKA_CHAT_KAFKA__PROPERTIES__SSL_KEY_PEM": SECRET}
    problem = PropertyProblem(f'librdkafka says: ssl.key.pem failed: "{SECRET}" is not in PEM format', "ssl.key.pem")
    assert error_of(environ=environ, problem=problem, folder=tmp_path) == (
        "KAFKA_CHAT_KAFKA__PROPERTIES__SSL_KEY_PEM: kafka.properties.ssl.key.pem is ***; librdkafka says: "
        'ssl.key.pem failed: "***" is not in PEM format'
    )


def test_an_unknown_property_is_told_by_its_name_and_not_its_value(tmp_path: Path) -> None:
    problem = PropertyProblem("No such configuration property", "sasl.passwrd", unknown=True)
    sentence = error_of(text=f"kafka:\n  properties:\n    sasl.passwrd: {SECRET}", problem=problem, folder=tmp_path)
    assert sentence == "config.yaml, line 3: there is no property sasl.passwrd in librdkafka; its configuration reference lists them"


def test_a_value_that_librdkafka_does_not_take_is_told_with_what_is_needed(tmp_path: Path) -> None:
    problem = PropertyProblem("a whole number is needed", "socket.timeout.ms")
    sentence = error_of(text="kafka:\n  properties:\n    socket.timeout.ms: 60000x", problem=problem, folder=tmp_path)
    assert sentence == 'config.yaml, line 3: kafka.properties.socket.timeout.ms is "60000x"; a whole number is needed'


def test_what_is_wrong_with_properties_together_is_told_without_a_source(tmp_path: Path) -> None:
    text = "kafka:\n  properties:\n    security.protocol: sasl_ssl"
    sentence = error_of(text=text, problem=PropertyProblem("No provider for SASL mechanism GSSAPI"), folder=tmp_path)
    assert sentence == "kafka.properties: librdkafka rejects them: No provider for SASL mechanism GSSAPI"


@pytest.mark.parametrize("key", ["kafka.sasl.password", "sasl.password"])
def test_a_property_in_another_place_is_told_where_properties_go(key: str, tmp_path: Path) -> None:
    section, _, name = key.rpartition("kafka.")
    text = f"kafka:\n  {name}: {SECRET}" if section == "" and key.startswith("kafka.") else f"{name}: {SECRET}"
    assert error_of(text=text, folder=tmp_path).endswith("; librdkafka's properties go under kafka.properties")


@pytest.mark.promise("p-time-outs-not-shorter")
@pytest.mark.parametrize(
    ("name", "least"),
    [("socket.timeout.ms", 10_000), ("api.version.request.timeout.ms", 10_000), ("socket.connection.setup.timeout.ms", 5_000)],
)
def test_a_time_out_that_ends_answers_of_brokers_far_away_is_refused(name: str, least: int, tmp_path: Path) -> None:
    sentence = error_of(text=f"kafka:\n  properties:\n    {name}: {least - 1}", folder=tmp_path)
    assert sentence.startswith(f'config.yaml, line 3: kafka.properties.{name} is "{least - 1}"; at least {least} is needed')
    file = tmp_path / "config.yaml"
    file.write_text(f"kafka:\n  properties:\n    {name}: {least}")
    assert load_settings(config_file=file, environ={}, flags={}).kafka.properties == {name: str(least)}
