"""`kafka-chat serve`, and hypercorn's own command: what they say, and how they end."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest
import trio

from tests.support.clients import http
from tests.support.deadlines import HANG_SECONDS
from tests.support.processes import end_process, start_process
from tests.support.serving import child, spawned, spawned_hypercorn

COMMAND = [sys.executable, "-m", "kafka_chat", "serve"]
HYPERCORN = [sys.executable, "-m", "hypercorn", "-k", "trio", "--bind", "127.0.0.1:0", "kafka_chat.asgi:app"]
EMBEDDED = {"KAFKA_CHAT_KAFKA__EMBEDDED": "true"}


@pytest.mark.promise("p-listening")
async def test_it_serves_on_the_embedded_broker_where_no_other_is_named_and_says_so() -> None:
    async with spawned() as server:
        assert re.fullmatch(r"listening on http://127\.0\.0\.1:\d+ with the embedded broker\n", server.stdout)
        assert "kafka-chat: no broker is named, so the embedded one is used" in server.stderr
        answer = await http(server.url, "GET", "/health")
        assert (answer.status, answer.json()) == (200, {"status": "Consumer is running"})


async def test_nothing_is_said_of_a_missing_broker_where_the_embedded_one_is_asked_for() -> None:
    async with spawned("--embedded") as server:
        assert "no broker is named" not in server.stderr


async def test_it_serves_while_no_broker_answers_and_says_which_it_uses() -> None:
    async with spawned("--bootstrap", "127.0.0.1:1") as server:
        assert server.stdout == f"listening on {server.url} with the brokers 127.0.0.1:1\n"
        assert (await http(server.url, "GET", "/health")).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.promise("p-exit-0")
async def test_a_signal_ends_it_with_exit_code_0(number: signal.Signals) -> None:
    async with spawned() as server:
        os.kill(server.pid, number)
        assert await server.wait() == 0
        assert "Traceback" not in server.stderr


async def test_sigterm_is_not_missed_while_it_starts(tmp_path: Path) -> None:
    # A handler of its own is what process 1 of a container needs, so that is what the exit code has to show.
    config = tmp_path / "config.yaml"
    os.mkfifo(config)
    async with child([*COMMAND, "--config", str(config)]) as server:
        writing = await trio.to_thread.run_sync(os.open, config, os.O_WRONLY, abandon_on_cancel=True)  # once it reads
        server.terminate()
        assert await server.wait() == 0
        os.close(writing)
        assert (server.stdout, server.stderr) == ("", "")


@pytest.mark.promise("p-log-lines")
async def test_log_lines_have_the_time_in_utc() -> None:
    async with spawned() as server:
        await server.wait_for(r"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO kafka_chat: ")


@pytest.mark.promise("p-exit-130")
async def test_a_second_ctrl_c_ends_it_at_once() -> None:
    async with spawned(env={"KAFKA_CHAT_SERVER__DRAIN_SECONDS": "600"}) as server:
        host, port = server.url.removeprefix("http://").split(":")
        # A request that is never finished, so that the drain has somebody to wait for.
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(b"POST /send-message/chat/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
            os.kill(server.pid, signal.SIGINT)
            with trio.fail_after(HANG_SECONDS):
                while await is_listening(host, int(port)):  # noqa: ASYNC110 - another process has no event for us
                    await trio.sleep(0.02)
            assert server.returncode is None
            os.kill(server.pid, signal.SIGINT)
            assert await server.wait(seconds=2) == 130
            assert "Traceback" not in server.stderr


@pytest.mark.promise("p-exit-1")
async def test_a_busy_port_is_one_sentence_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with child([*COMMAND, "--embedded", "--port", str(port)]) as server:
            assert await server.wait() == 1
            assert server.stderr.splitlines()[-1] == f"kafka-chat: port {port} on 127.0.0.1 is in use; choose another with --port"
            assert (server.stdout, "Traceback" in server.stderr) == ("", False)


# An address for documents, and a name that never resolves.
@pytest.mark.parametrize("host", ["203.0.113.7", "nowhere.invalid"])
async def test_an_address_of_another_machine_is_one_sentence_and_exit_code_1(host: str) -> None:
    async with child([*COMMAND, "--embedded", "--port", "0", "--host", host]) as server:
        assert await server.wait() == 1
        assert server.stderr.splitlines()[-1] == f"kafka-chat: {host} is not an address of this machine; choose another with --host"
        assert (server.stdout, "Traceback" in server.stderr) == ("", False)


async def test_it_serves_on_ipv6() -> None:
    async with spawned("--host", "::1") as server:
        assert re.fullmatch(r"http://\[::1\]:\d+", server.url)


async def test_it_serves_on_where_nobody_reads_its_stdout(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    read, write = os.pipe()
    os.close(read)
    with (tmp_path / "stderr").open("wb") as stderr:
        process = start_process([*COMMAND, "--embedded", "--port", str(port)], stdout=write, stderr=stderr, cwd=tmp_path)
    os.close(write)
    try:
        with trio.fail_after(HANG_SECONDS):
            while not await is_listening("127.0.0.1", port):  # noqa: ASYNC110 - another process has no event for us
                await trio.sleep(0.02)
        process.terminate()
        assert await trio.to_thread.run_sync(process.wait, 20) == 0
        assert b"Traceback" not in (tmp_path / "stderr").read_bytes()
    finally:
        end_process(process, kill=True)


@pytest.mark.promise("p-hypercorn")
async def test_the_same_application_runs_under_hypercorns_command() -> None:
    async with spawned_hypercorn(env=EMBEDDED) as server:
        assert (await http(server.url, "GET", "/health")).status == 200
        server.terminate()
        assert await server.wait() == 0
        assert "Traceback" not in server.stderr
        assert server.stderr.count("Running on") == 1


# With `--workers 0` hypercorn serves in its own process; else in a child, and then forgets the child's exit code
# (tests/edges/test_hypercorn_command.py).
async def test_hypercorns_command_ends_with_one_sentence_and_exit_code_2_without_a_broker() -> None:
    async with child([*HYPERCORN, "--workers", "0"]) as server:
        assert await server.wait() == 2
        assert server.stderr == (
            "kafka_chat: no broker: set KAFKA_CHAT_KAFKA__BOOTSTRAP_SERVERS to HOST:PORT, or KAFKA_CHAT_KAFKA__EMBEDDED to true for the "
            "embedded broker (or set them in config.yaml)\n"
        )


async def test_hypercorns_command_ends_with_one_sentence_for_a_wrong_setting() -> None:
    async with child([*HYPERCORN, "--workers", "0"], env={"KAFKA_CHAT_SERVER__PROT": "1"}) as server:
        assert await server.wait() == 2
        assert server.stderr == "kafka_chat: KAFKA_CHAT_SERVER__PROT: there is no such setting; did you mean KAFKA_CHAT_SERVER__PORT?\n"


async def test_hypercorns_usual_command_says_the_same_and_ends() -> None:
    async with child(HYPERCORN) as server:
        await server.wait()
        assert server.stderr.startswith("kafka_chat: no broker: set KAFKA_CHAT_KAFKA__BOOTSTRAP_SERVERS to HOST:PORT")
        assert "Traceback" not in server.stderr


async def is_listening(host: str, port: int) -> bool:
    try:
        await (await trio.open_tcp_stream(host, port)).aclose()
    except OSError:
        return False
    return True
