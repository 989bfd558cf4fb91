"""The compose file and the Dockerfile name only what exists."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from kafka_chat.cli.main import _parser
from kafka_chat.errors import SettingsError
from kafka_chat.settings.model import Settings
from kafka_chat.settings.sources import load_settings
from kafka_chat.web.app import create_app

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICE = COMPOSE["services"]["kafka_chat"]
KAFKA = COMPOSE["services"]["kafka"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = re.sub(r"\\\n", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()


def instructions(name: str) -> list[str]:
    """What stands behind an instruction in the last stage, which is what the image is."""
    last_stage = max(index for index, line in enumerate(INSTRUCTIONS) if line.startswith("FROM "))
    return [line.partition(" ")[2] for line in INSTRUCTIONS[last_stage:] if line.startswith(f"{name} ")]


def image_environment() -> dict[str, str]:
    return dict(word.split("=", 1) for words in instructions("ENV") for word in shlex.split(words))


def image_command() -> list[str]:
    (entrypoint,), (command,) = instructions("ENTRYPOINT"), instructions("CMD")
    return [*json.loads(entrypoint), *json.loads(command)]


def image_health_check() -> list[str]:
    (check,) = instructions("HEALTHCHECK")
    return ["CMD", *json.loads(check[check.index("[") :])]


def settings_of(environment: dict[str, str]) -> Settings:
    return load_settings(config_file=None, environ=environment, flags={}, check_properties=lambda _: None)


@pytest.fixture(autouse=True)
def no_config_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.promise("p-image-settings")
def test_every_setting_of_the_compose_file_exists_and_names_its_broker():
    settings = settings_of({**image_environment(), **SERVICE["environment"]})
    host, port = settings.kafka.bootstrap_servers.split(":")
    assert KAFKA is COMPOSE["services"][host]
    assert KAFKA["environment"]["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{host}:{port}"
    assert settings.sending_enabled


@pytest.mark.parametrize("variable", sorted({*image_environment(), *SERVICE["environment"]} - {"PATH"}))
def test_a_variable_that_is_misspelt_would_be_noticed(variable):
    if not variable.startswith("KAFKA_CHAT_"):
        assert variable.startswith("PYTHON")
        return
    with pytest.raises(SettingsError, match=f"{variable}X: there is no such setting"):
        settings_of({f"{variable}X": "1"})


def test_every_command_is_one_of_ours():
    entrypoint, *arguments = image_command()
    assert f'\n{entrypoint} = "kafka_chat.__main__:run"\n' in (ROOT / "pyproject.toml").read_text()
    for given in (arguments, SERVICE["command"]):
        assert _parser().parse_args(given).run is not None


def test_ports_fit_the_service():
    settings = settings_of({**image_environment(), **SERVICE["environment"]})
    assert settings.server.host == "0.0.0.0"
    assert [port.rsplit(":", 1)[1] for port in SERVICE["ports"]] == [str(settings.server.port)]
    assert instructions("EXPOSE") == [str(settings.server.port)]


@pytest.mark.parametrize(("check", "path"), [(image_health_check(), "/health"), (SERVICE["healthcheck"]["test"], "/ready")])
def test_a_health_check_asks_a_route_that_is_there(check, path):
    how, python, flag, code = check
    assert (how, python, flag) == ("CMD", "python3", "-c")
    compile(code, path, "exec")
    settings = settings_of(image_environment())
    assert f"HTTPConnection('127.0.0.1', {settings.server.port}, " in code
    assert f"request('GET', '{path}')" in code
    assert path in {rule.rule for rule in create_app(settings).url_map.iter_rules()}


@pytest.mark.promise("p-compose")
def test_it_starts_once_kafka_is_there_and_has_time_to_drain():
    assert SERVICE["depends_on"]["kafka"]["condition"] == "service_healthy"
    assert KAFKA["healthcheck"]["test"][0] == "CMD"
    settings = settings_of({**image_environment(), **SERVICE["environment"]})
    patience = int(SERVICE["stop_grace_period"].removesuffix("s"))
    asked_for = re.search(r"so give it `drain_seconds` \+ (\d+) before SIGKILL", (ROOT / "docs/operations.md").read_text())
    assert asked_for is not None
    assert patience >= settings.server.drain_seconds + int(asked_for[1])


@pytest.mark.promise("p-compose")
def test_the_topics_that_are_made_are_chats_and_the_default_ones_are_among_them():
    maker = COMPOSE["services"]["topics"]
    assert maker["image"] == KAFKA["image"]
    assert SERVICE["depends_on"]["topics"]["condition"] == "service_completed_successfully"
    (script,) = maker["command"][2:]
    settings = settings_of({**image_environment(), **SERVICE["environment"]})
    assert f"--bootstrap-server {settings.kafka.bootstrap_servers} " in script
    assert f"--topic {settings.chats.prefix}$$chat " in script  # $$ is compose's $
    made = re.search(r"for chat in (.*); do", script)
    assert made is not None
    assert set(settings.chats.default) <= set(made[1].split())


def test_kafka_keeps_what_it_has_in_a_volume():
    environment = KAFKA["environment"]
    (volume,) = KAFKA["volumes"]
    name, folder = volume.split(":")
    assert name in COMPOSE["volumes"]
    assert environment["KAFKA_LOG_DIRS"] == folder


@pytest.mark.promise("p-image-broker")
def test_the_image_has_no_broker_of_its_own_unless_it_is_asked_for():
    settings = settings_of(image_environment())
    assert settings.kafka.bootstrap_servers is None
    assert settings.kafka.embedded is False
    assert settings_of({**image_environment(), "KAFKA_CHAT_KAFKA__EMBEDDED": "true"}).kafka.embedded


@pytest.mark.promise("p-image")
def test_the_image_runs_as_a_user_that_is_made_for_it():
    (user,) = instructions("USER")
    assert user != "0"
    assert any(f"useradd --uid {user} " in command for command in instructions("RUN"))


def test_the_build_context_has_what_the_image_copies():
    ignored = (ROOT / ".dockerignore").read_text().split()
    lines = [line.split()[1:-1] for line in INSTRUCTIONS if line.startswith("COPY ") and "--from" not in line]
    copied = [word for words in lines for word in words]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, name
