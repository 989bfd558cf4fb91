"""The examples of the README work as they are pasted."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit

import trio

from tests.support.deadlines import HANG_SECONDS
from tests.support.http_client import http
from tests.support.serving import child, spawned

README = (Path(__file__).parents[2] / "README.md").read_text()
BINARIES = Path(sys.executable).parent


def examples(language: str, with_text: str) -> str:
    """Return the one block of a language in which a text stands."""
    blocks = [block for block in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if with_text in block]
    assert len(blocks) == 1, (language, with_text, len(blocks))
    return blocks[0]


def here(example: str, url: str) -> str:
    """Return an example for the service at `url`, with the commands of this environment."""
    host = url.removeprefix("http://")
    local = example.replace("127.0.0.1:8001", host).replace(".venv/bin/kafka-chat", f"{BINARIES}/kafka-chat")
    return re.sub(r"(kafka-chat (?:listen|send) [^\n]*)", rf"\1 --url {url}", local)


async def test_two_terminals_and_curl_and_python_chat_as_it_says():
    environment = {"PATH": f"{BINARIES}:{os.environ['PATH']}"}
    async with spawned("--embedded") as server:
        listen = here(examples("sh", "kafka-chat listen"), server.url)
        send = here(examples("sh", "kafka-chat send"), server.url)
        curl = here(examples("sh", "curl -X POST"), server.url)
        bare = here(examples("python", "websockets.connect"), server.url)
        returning = here(examples("python", "open_chat"), server.url)
        async with (
            child(["bash", "-ec", listen], env=environment) as listener,
            child([sys.executable, "-c", bare], env=environment) as bare_script,
            child([sys.executable, "-c", returning], env=environment) as returning_script,
        ):
            await listener.wait_for("connected to .* as ann")
            await listener.wait_for("subscribed ann to room1")
            await _connected(server.url, 3)
            async with child(["bash", "-ec", send], env=environment) as sender:
                assert await sender.wait() == 0, sender.stderr
            for line in curl.splitlines():
                await as_curl(line)
            for client in (listener, bare_script, returning_script):
                await client.wait_for("room1 bob:? hello from a terminal")
                await client.wait_for("room1 bob:? hello from curl")
            listener.terminate()
            bare_script.kill()
            returning_script.kill()


async def as_curl(line: str) -> None:
    """Do what a line of the README has curl do, which need not be there."""
    command, *words = shlex.split(line)
    assert command == "curl"
    method, headers, body, url = "GET", {}, b"", ""
    while words:
        match words.pop(0):
            case "-X":
                method = words.pop(0)
            case "-H":
                name, value = words.pop(0).split(": ")
                headers[name] = value
            case "-d":
                method, body = "POST", words.pop(0).encode()
            case word:
                url = word
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    answer = await http(f"{parts.scheme}://{parts.netloc}", method, path, headers=headers, body=body)
    assert answer.status == 200, answer.text


async def _connected(url: str, count: int) -> None:
    """Wait until this many clients are connected."""
    with trio.fail_after(HANG_SECONDS):
        while f"kafka_chat_sessions {float(count)}" not in (await http(url, "GET", "/metrics")).text:  # noqa: ASYNC110 - it is polled by nature
            await trio.sleep(0.05)


def test_the_frame_that_it_shows_is_what_is_sent():
    assert examples("json", "hello from curl") == '{"sender":"bob","text":"hello from curl","tag":null,"chat":"room1"}\n'
