"""What the command line answers before anything is served: one sentence, an exit code, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kafka_chat.cli.check import ANSWER_SECONDS
from tests.support.deadlines import HANG_SECONDS

COMMAND = [sys.executable, "-m", "kafka_chat"]


def run(*arguments: str, folder: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_CHAT_")}
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**inherited, **(env or {})},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def test_help_names_the_commands_and_their_flags(tmp_path: Path) -> None:
    assert "serve the chats of a Kafka cluster over WebSockets" in run("--help", folder=tmp_path).stdout
    ended = run("serve", "--help", folder=tmp_path)
    assert ended.returncode == 0
    for flag in ("--config FILE", "--host H", "--port N", "--embedded", "--bootstrap HOST:PORT[,...]"):
        assert flag in ended.stdout


def test_help_says_how_long_a_check_takes_at_most(tmp_path: Path) -> None:
    assert f"at most {ANSWER_SECONDS:.0f} seconds" in " ".join(run("check", "--help", folder=tmp_path).stdout.split())


def test_help_needs_no_unicode(tmp_path: Path) -> None:
    ended = run("serve", "--help", folder=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    assert run("--version", folder=tmp_path).stdout.startswith("kafka-chat 0.")


def test_without_a_command_the_help_is_shown(tmp_path: Path) -> None:
    ended = run(folder=tmp_path)
    assert ended.returncode == 2
    assert "usage: kafka-chat" in ended.stderr


WRONG = {
    ("serve", "--port", "lots"): '--port: server.port is "lots"; a whole number from 0 to 65535 is needed',
    ("serve", "--port", "65536"): '--port: server.port is "65536"; a whole number from 0 to 65535 is needed',
    ("serve", "--host", "a b"): '--host: server.host is "a b"; the name or the address of this machine, such as 127.0.0.1 or 0.0.0.0, is '
    "needed",
    ("serve", "--bootstrap", "a"): '--bootstrap: kafka.bootstrap_servers is "a"; HOST:PORT, or several separated by commas, is needed',
    **{
        ("listen", "ann", f"--rewind={n}"): f'--rewind is "{n}"; a whole number from 1 to 1000 is needed'
        for n in ("0", "-1", "1001", "1.5", "many", "²")
    },
    ("serve", "--config", "missing.yaml"): "missing.yaml cannot be read: No such file or directory",
}


@pytest.mark.parametrize(("arguments", "sentence"), WRONG.items(), ids=" ".join)
@pytest.mark.promise("p-exit-2")
def test_a_wrong_flag_is_one_sentence_and_exit_code_2(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    ended = run(*arguments, folder=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"kafka-chat: {sentence}\n")


def test_two_kinds_of_broker_at_once_are_refused(tmp_path: Path) -> None:
    ended = run("serve", "--embedded", "--bootstrap", "a:1", folder=tmp_path)
    assert ended.returncode == 2
    assert "not allowed with argument --embedded" in ended.stderr


def test_an_unknown_flag_is_exit_code_2(tmp_path: Path) -> None:
    ended = run("serve", "--colour", folder=tmp_path)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.promise("p-exit-2")
def test_a_wrong_file_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("server:\n  prot: 1\n")
    ended = run("serve", folder=tmp_path)
    sentence = "kafka-chat: config.yaml, line 2: there is no setting server.prot; did you mean server.port?\n"
    assert (ended.returncode, ended.stderr) == (2, sentence)


def test_a_wrong_variable_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    ended = run("serve", folder=tmp_path, env={"KAFKA_CHAT_SERVER__PROT": "1"})
    sentence = "kafka-chat: KAFKA_CHAT_SERVER__PROT: there is no such setting; did you mean KAFKA_CHAT_SERVER__PORT?\n"
    assert (ended.returncode, ended.stderr) == (2, sentence)


def test_a_wrong_property_is_one_sentence_without_its_secret_and_exit_code_2(tmp_path: Path) -> None:
    ended = run("serve", folder=tmp_path, env={"KAFKA_CHAT_KAFKA__PROPERTIES__SASL_PASSWRD": "hunter2"})
    sentence = (
        "kafka-chat: KAFKA_CHAT_KAFKA__PROPERTIES__SASL_PASSWRD: there is no property sasl.passwrd in librdkafka; "
        "its configuration reference lists them\n"
    )
    assert (ended.returncode, ended.stderr) == (2, sentence)


@pytest.mark.promise("p-exit-2")
def test_a_number_with_something_else_in_it_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("kafka:\n  properties:\n    socket.timeout.ms: 60000x\n")
    ended = run("serve", folder=tmp_path)
    sentence = 'config.yaml, line 3: kafka.properties.socket.timeout.ms is "60000x"; a whole number is needed, 2147483647 at most\n'
    assert (ended.returncode, ended.stderr) == (2, f"kafka-chat: {sentence}")


def test_more_connections_than_open_files_is_exit_code_2(tmp_path: Path) -> None:
    ended = run("serve", folder=tmp_path, env={"KAFKA_CHAT_LIMITS__CONNECTIONS": "1000000000"})
    assert ended.returncode == 2
    assert "limits.connections is 1000000000; at most " in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.promise("p-image-broker")
def test_where_the_embedded_broker_is_ruled_out_a_broker_has_to_be_named(tmp_path: Path) -> None:
    ended = run("serve", folder=tmp_path, env={"KAFKA_CHAT_KAFKA__EMBEDDED": "false"})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("kafka-chat: no broker is named, and kafka.embedded is false: name one by --bootstrap HOST:PORT, ")
