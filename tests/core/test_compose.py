"""The compose file and the Dockerfile name only what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from kafka_chat.cli import _parser
from kafka_chat.settings_sources import load_settings
from kafka_chat.web.app import create_app

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICE = COMPOSE["services"]["kafka_chat"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def image_environment() -> dict[str, str]:
    """The variables that the image sets."""
    block = re.search(r"^ENV ((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    assert block is not None
    words = shlex.split(block[1].replace("\\\n", " "))
    return dict(word.split("=", 1) for word in words)


def settings_of(environment: dict[str, str]):
    return load_settings(config_file=None, environ=environment, flags={}, check_properties=lambda _: None)


def test_every_setting_of_the_compose_file_exists_and_names_its_broker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no config.yaml here
    settings = settings_of({**image_environment(), **SERVICE["environment"]})
    host, port = settings.kafka.bootstrap_servers.split(":")
    assert host in COMPOSE["services"]
    listeners = COMPOSE["services"][host]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert listeners == f"PLAINTEXT://{host}:{port}"
    assert settings.sending_enabled


def test_every_command_is_one_of_ours():
    parsed = _parser().parse_args(SERVICE["command"])
    assert parsed.run is not None
    entry, command = (re.search(rf'^{word} \["(.*)"\]$', DOCKERFILE, re.MULTILINE) for word in ("ENTRYPOINT", "CMD"))
    assert entry is not None
    assert command is not None
    assert entry[1] == "kafka-chat"
    assert _parser().parse_args([command[1]]).run is not None


def test_ports_and_health_checks_fit_the_service(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = settings_of({**image_environment(), **SERVICE["environment"]})
    assert settings.server.host == "0.0.0.0"
    assert [port.rsplit(":", 1)[1] for port in SERVICE["ports"]] == [str(settings.server.port)]
    assert f"EXPOSE {settings.server.port}\n" in DOCKERFILE
    routes = {rule.rule for rule in create_app(settings).url_map.iter_rules()}
    for text in (DOCKERFILE, " ".join(SERVICE["healthcheck"]["test"])):
        checked = re.search(rf"http://127\.0\.0\.1:{settings.server.port}(/\w+)", text)
        assert checked is not None
        assert checked[1] in routes


def test_it_starts_once_kafka_is_there_and_has_time_to_drain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert SERVICE["depends_on"]["kafka"]["condition"] == "service_healthy"
    assert "test" in COMPOSE["services"]["kafka"]["healthcheck"]
    settings = settings_of({**image_environment(), **SERVICE["environment"]})
    assert int(SERVICE["stop_grace_period"].removesuffix("s")) > settings.server.drain_seconds + 1


def test_the_image_refuses_to_start_without_a_broker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = settings_of(image_environment())
    assert settings.kafka.bootstrap_servers is None
    assert settings.kafka.embedded is False


def test_the_build_context_has_what_the_image_copies():
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, name
