"""A reader of the log or of stdout that stops reading delays nothing: lines are dropped and counted, and the service goes on."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest
import trio

from tests.support.clients import http, open_raw, receive_path
from tests.support.serving import child, spawned

KAFKA_CHAT = [sys.executable, "-m", "kafka_chat"]
pytestmark = pytest.mark.deadline(300)
PIPE_BYTES = 4096  # what the kernel takes before a writer waits: as little as it allows
LINE = re.compile(rb"\S+Z (\w+) (?:[\w-]+\[\d+\] )?kafka_chat: (\S+) (.*)")


@contextmanager
def unread_pipe() -> Iterator[tuple[int, int]]:
    """The ends of a pipe that nobody reads, unless the test does."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    try:
        yield read, write
    finally:
        os.close(write)
        os.close(read)


def serve(port: int) -> list[str]:
    return [*KAFKA_CHAT, "serve", "--embedded", "--port", str(port)]


def workers(port: int) -> list[str]:
    return [*serve(port), "--workers", "2"]


def hypercorn(port: int) -> list[str]:
    bind = f"127.0.0.1:{port}"
    return [sys.executable, "-m", "hypercorn", "-k", "trio", "--access-logfile", "-", "--bind", bind, "kafka_chat.asgi:app"]


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port: int = taken.getsockname()[1]
    return port


async def until_served(url: str) -> None:
    with trio.fail_after(60):
        while True:
            try:
                if (await http(url, "GET", "/ready")).status == 200:
                    return
            except OSError:
                await trio.sleep(0.05)


async def come_and_go(url: str, count: int) -> None:
    """Connect so often, under names that make lines of 800 bytes."""
    for number in range(count):
        async with open_raw(url, receive_path(f"{number:0>5}{'ü' * 125}")):
            pass


async def dropped(url: str, reason: str) -> float:
    """Return how many lines were dropped for this reason, by all processes."""
    text = (await http(url, "GET", "/metrics")).body.decode()
    return sum(float(value) for value in re.findall(rf'kafka_chat_log_lines_dropped_total\{{reason="{reason}".*\}} (\S+)', text))


def log_lines(text: bytes) -> list[tuple[bytes, bytes]]:
    """Return event and fields of each line; every line has to be whole."""
    found = []
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        assert match is not None, line
        found.append((match[2], match[3]))
    return found


@pytest.mark.promise("p-log-unread")
async def test_a_thousand_clients_come_and_go_while_nobody_reads_and_all_is_served_until_sigterm_ends_it_with_0() -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    with unread_pipe() as (_, stdout), unread_pipe() as (_, stderr):
        async with child(serve(port), stdout=stdout, stderr=stderr) as server:
            await until_served(url)
            await come_and_go(url, 1_000)
            assert (await http(url, "GET", "/health")).status == 200
            assert (await http(url, "GET", "/ready")).status == 200
            assert await dropped(url, "stalled") > 500  # of two lines each, 1 MiB is kept
            server.terminate()
            assert await server.wait(seconds=30) == 0


@pytest.mark.parametrize("command", [workers, hypercorn])
async def test_several_processes_are_not_held_up_either(command: Callable[[int], list[str]]) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    with unread_pipe() as (_, stdout), unread_pipe() as (_, stderr):
        async with child(command(port), env={"KAFKA_CHAT_KAFKA__EMBEDDED": "true"}, stdout=stdout, stderr=stderr) as server:
            await until_served(url)
            await come_and_go(url, 50)  # the pipe takes the lines of five
            assert (await http(url, "GET", "/health")).status == 200
            server.terminate()
            assert await server.wait(seconds=30) == 0


async def test_a_reader_that_comes_back_gets_whole_lines_in_their_order_and_how_many_are_missing() -> None:
    url, clients = f"http://127.0.0.1:{(port := free_port())}", 900
    with unread_pipe() as (read, stderr):
        async with child(serve(port), stderr=stderr) as server:
            await until_served(url)
            await come_and_go(url, clients)
            missing = int(await dropped(url, "stalled"))
            assert missing > 0
            text = bytearray()

            async def read_on() -> None:
                while (data := await trio.to_thread.run_sync(os.read, read, 1 << 16)) != b"end":
                    text.extend(data)

            async with trio.open_nursery() as reading:
                reading.start_soon(read_on)
                while f"log.dropped lines={missing}".encode() not in text:  # noqa: ASYNC110 - a pipe tells nobody what was read
                    await trio.sleep(0.01)
                await come_and_go(url, 1)  # what is logged then is written again
                server.terminate()
                assert await server.wait(seconds=30) == 0
                os.write(stderr, b"end")
    lines = [line for line in log_lines(bytes(text)) if line[0].startswith((b"session.", b"log."))]
    (note,) = [place for place, (event, _) in enumerate(lines) if event == b"log.dropped"]
    assert len(lines) - 1 + missing == 2 * (clients + 1)
    opened = [
        int(match[1]) for event, fields in lines[:note] if event == b"session.opened" and (match := re.search(rb'user="(\d+)', fields))
    ]
    assert opened == list(range(len(opened)))
    assert [event for event, _ in lines[note + 1 :]] == [b"session.opened", b"session.closed"]


@pytest.mark.parametrize("redirections", ["2>&-", ">/dev/full 2>&1", "<&- >&- 2>&-"])
async def test_it_serves_where_stdout_or_stderr_are_closed_or_cannot_be_written(redirections: str) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    async with child(["sh", "-c", f'exec "$@" {redirections}', "sh", *serve(port)]) as server:
        await until_served(url)
        async with open_raw(url, receive_path("ann")) as ann:  # where a descriptor was free, a log line would reach her
            await come_and_go(url, 3)
            await ann.ping()
        if "/dev/full" in redirections:
            assert await dropped(url, "failed") > 0
        server.terminate()
        assert await server.wait(seconds=30) == 0


@pytest.mark.parametrize(
    "arguments", [["serve", "--port", "lots"], ["serve", "--bootstrap", "localhost:1", "--host", "203.0.113.7"]], ids=" ".join
)
async def test_a_sentence_that_nobody_reads_keeps_no_process(arguments: list[str]) -> None:
    with unread_pipe() as (_, stderr):
        os.set_blocking(stderr, False)
        with suppress(BlockingIOError):
            while True:
                os.write(stderr, b"x" * 512)
        os.set_blocking(stderr, True)
        async with child([*KAFKA_CHAT, *arguments], stderr=stderr) as server:
            assert await server.wait(seconds=60) == (2 if "lots" in arguments else 1)


async def test_listen_ends_by_a_signal_while_nobody_reads_what_it_prints() -> None:
    async with spawned("--embedded", env={"KAFKA_CHAT_SENDING__ENABLED": "true"}) as server:
        for user, number, code in (("ann", signal.SIGTERM, 143), ("bob", signal.SIGINT, 130)):
            command = [*KAFKA_CHAT, "listen", user, "--url", server.url]
            with unread_pipe() as (_, stdout):
                async with child(command, stdout=stdout) as listener:
                    await server.wait_for(f"session.opened .* user={user}")
                    message = {"sender": "eve", "text": "x" * 1000}
                    for _ in range(20):
                        assert (await http(server.url, "POST", "/send-message/chat/global", json_body=message)).status == 200
                    while select.select([], [stdout], [], 0)[1]:  # noqa: ASYNC110 - a pipe that is filled tells nobody
                        await trio.sleep(0.01)
                    listener.signal(number)
                    assert await listener.wait(seconds=30) == code
