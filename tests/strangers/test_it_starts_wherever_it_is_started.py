"""With any working directory, user and standard streams, a command starts, or says one sentence and ends with 2."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.support.clients import http
from tests.support.serving import ChildServer, child, spawned

COMMAND = str(Path(sys.executable).with_name("kafka-chat"))
EMBEDDED = {"KAFKA_CHAT_KAFKA__EMBEDDED": "true"}
NOBODY = 65534


def shell(command: str, streams: str) -> list[str]:
    return ["bash", "-c", f"exec {COMMAND} {command} {streams}"]


def only_sentence(server: ChildServer) -> str:
    """Return what it said on stderr, which has to be one line of ours."""
    (line,) = server.stderr.splitlines()
    assert line.startswith("kafka-chat: ")
    return line


STREAMS = [(1, "<&-"), (1, ">&-"), (1, ">/dev/full"), (1, "2>&-"), (1, "2>/dev/full"), (1, "<&- >&- 2>&-"), (1, ">/dev/full 2>/dev/full")]
OF_WORKERS = [(2, ">/dev/full"), (2, "<&- >&- 2>&-")]  # a worker has what the supervisor has


@pytest.mark.parametrize(("workers", "streams"), [*STREAMS, *OF_WORKERS])
async def test_it_serves_without_streams_and_ends_well(workers: int, streams: str) -> None:
    port = free_port()
    async with child(shell(f"serve --embedded --port {port} --workers {workers}", streams)) as server:
        while server.returncode is None and not await answers(port):  # noqa: ASYNC110 - it says nothing
            await trio.sleep(0.05)
        for descriptor in range(3):  # none of them is a socket, to which whatever a library prints would go
            assert not os.readlink(f"/proc/{server.pid}/fd/{descriptor}").startswith("socket:")
        server.terminate()
        assert await server.wait() == 0
        assert "Traceback" not in server.stderr


@pytest.mark.parametrize("streams", [">&-", ">/dev/full"])
async def test_where_its_output_goes_nowhere_each_other_command_says_one_sentence(streams: str, tmp_path: Path) -> None:
    about = "stdout is closed" if streams == ">&-" else "stdout cannot be written: No space left on device"
    async with spawned("--embedded") as server:
        listening = f"listen ann --rewind 1 --cursor-file {shlex.quote(str(tmp_path / 'cursor'))} --url {server.url}"
        sending = f"send global hello --as bo --url {server.url}"
        async with child([COMMAND, *shlex.split(sending)]) as sender:
            assert await sender.wait() == 0
        for command in ("check", "cursor AQAAAAAA", sending, listening):
            async with child(shell(command, streams), env=EMBEDDED) as one:
                assert await one.wait() == 2, command
                last = one.stderr.splitlines()[-1]
                assert last.startswith("kafka-chat: "), one.stderr
                assert about in last, one.stderr
                assert "Traceback" not in one.stderr
                if command == sending and streams == ">/dev/full":
                    assert "the message is in kafka.chat.global/" in last
        async with child([COMMAND, *shlex.split(listening)]) as listener:  # what was not printed is not noted
            await listener.wait_for("global bo: hello\n")


async def test_help_that_cannot_be_printed_is_an_error_and_flags_that_are_wrong_are_2() -> None:
    for command, streams in (("--help", ">/dev/full"), ("listen --help", ">/dev/full"), ("--nonsense", "2>/dev/full"), ("", "2>&-")):
        async with child(shell(command, streams)) as one:
            assert await one.wait() == 2, (command, streams)
            assert "Traceback" not in one.stderr


@pytest.mark.parametrize("streams", ["<&-", "< <(printf '\\xff')"])
async def test_a_text_that_cannot_be_read_is_said(streams: str) -> None:
    for command in ("send room1 - --as bo", "cursor -"):
        async with child(shell(command, streams), env={"PYTHONIOENCODING": "utf-8:strict"}) as one:
            assert await one.wait() == 2
            assert "stdin " in only_sentence(one)


# What it imports late may be in a folder of root's, so it is imported before. Root has to become somebody else to be refused.
IN_A_FOLDER_OF_OTHERS = f"""
import encodings.utf_8_sig, os, sys
import kafka_chat.application, kafka_chat.cli.check, kafka_chat.cli.cursor_words, kafka_chat.cli.listen, kafka_chat.kafka.properties_check
from kafka_chat.cli.main import main
os.chmod(sys.argv[1], 0)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def in_closed_folder(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "closed"
    folder.mkdir()
    tmp_path.chmod(0o755)
    script = f"cd {folder} && exec {sys.executable} -P -c {shlex.quote(IN_A_FOLDER_OF_OTHERS)} ."
    yield script
    folder.chmod(0o700)


async def test_in_a_folder_that_may_not_be_searched_a_sentence_says_so_and_a_named_file_helps(in_closed_folder: str) -> None:
    for command, code, about in (
        ("serve --embedded --port 0", 2, "config.yaml"),
        ("check", 2, "config.yaml"),
        ("serve --config here.yaml", 2, "here.yaml cannot be read: Permission denied"),
        ("check --config /etc/passwd", 2, "/etc/passwd"),  # it is read, and is no settings
        ("cursor AQAAAAAA", 0, None),
        ("listen ann --cursor-file here", 2, "--cursor-file"),
    ):
        async with child(["bash", "-c", f"{in_closed_folder} {command}"]) as one:
            assert await one.wait() == code, one.stderr
            assert "Traceback" not in one.stderr
            assert about is None or about in only_sentence(one)


async def test_in_a_folder_that_has_been_deleted_it_starts(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone} && rmdir {gone} && exec {COMMAND} serve --embedded --port 0 --workers 2"
    async with child(["bash", "-c", script]) as server:
        await server.wait_for("listening on ", seconds=40)
        server.terminate()
        assert await server.wait() == 0
        assert "Traceback" not in server.stderr


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def answers(port: int) -> bool:
    try:
        return (await http(f"http://127.0.0.1:{port}", "GET", "/health")).status == 200
    except OSError:
        return False
