"""`kafka-chat listen`, `send` and `check`, as a person or a script uses them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.deadlines import HANG_SECONDS
from tests.support.serving import child, spawned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.serving import ChildServer

COMMAND = str(Path(sys.executable).with_name("kafka-chat"))


@pytest.fixture
async def server() -> AsyncIterator[ChildServer]:
    async with spawned("--embedded") as running:
        yield running


async def command(*arguments: str | bytes, text: str | None = None) -> subprocess.CompletedProcess[str]:
    run = partial(subprocess.run, [COMMAND, *arguments], input=text, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    return await trio.to_thread.run_sync(run)


async def test_two_terminals_chat(server):
    async with child([COMMAND, "listen", "ann", "--chat", "room1", "--url", server.url]) as listener:
        await listener.wait_for("subscribed ann to room1")
        await listener.wait_for("room1 does not exist yet; once it does, it is followed from its first message")
        await listener.wait_for("connected to .* as ann")
        sent = await command("send", "room1", "hello \x1b[31m", "--as", "bo", "--tag", "t", "--url", server.url)
        assert (sent.returncode, sent.stderr) == (0, "")
        assert sent.stdout.startswith("kafka.chat.room1/")
        assert " at offset " in sent.stdout
        await listener.wait_for(r"\d\d:\d\d:\d\d room1 bo: hello \\x1b\[31m  #t\n")
        assert "\x1b" not in listener.stdout
        listener.signal(signal.SIGINT)
        assert await listener.wait() == 130
        assert "Traceback" not in listener.stderr


async def test_a_pipe_gets_each_frame_as_it_came(server):
    async with child([COMMAND, "listen", "ann", "--json", "--url", server.url]) as listener:
        await listener.wait_for("connected to .* as ann")
        sent = await command("send", "global", "hello", "--as", "bo", "--json", "--url", server.url)
        assert json.loads(sent.stdout)["topic"] == "kafka.chat.global"
        await listener.wait_for(r"\}\n")
        assert json.loads(listener.stdout) == {"sender": "bo", "text": "hello", "tag": None, "chat": "global"}


async def test_a_text_comes_from_stdin_and_reaches_a_terminal_of_any_encoding(server):
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    as_text = child([COMMAND, "listen", "ann", "--url", server.url], env=ascii_only)
    as_json = child([COMMAND, "listen", "ann", "--json", "--url", server.url], env=ascii_only)
    async with as_text as text, as_json as frames:
        for listener in (text, frames):
            await listener.wait_for("connected to .* as ann")
        assert (await command("send", "global", "-", "--as", "bo", "--url", server.url, text="grüße\n")).returncode == 0
        await text.wait_for(r"global bo: gr\\xfc\\xdfe\n")
        await frames.wait_for('"text":"grüße"')


async def test_a_pipe_that_is_closed_ends_it_quietly(server):
    shell = f"{COMMAND} listen ann --url {server.url} | head -1"
    async with child(["bash", "-c", f"set -o pipefail; {shell}"]) as listener:
        await listener.wait_for("connected to .* as ann")
        await command("send", "global", "first", "--as", "bo", "--url", server.url)
        await listener.wait_for("bo: first\n")  # `head` ends
        await command("send", "global", "second", "--as", "bo", "--url", server.url)
        assert await listener.wait() == 0
        assert "Traceback" not in listener.stderr
        assert listener.stdout.count("\n") == 1


async def test_it_comes_back_when_the_service_does(tmp_path):
    async with spawned("--embedded") as first:
        port = first.url.rsplit(":", 1)[1]
        async with child([COMMAND, "listen", "ann", "--url", first.url]) as listener:
            await listener.wait_for("connected to .* as ann")
            first.terminate()
            assert await first.wait() == 0
            await listener.wait_for("the service is restarting; reconnecting")
            async with child([COMMAND, "serve", "--port", port, "--embedded"]) as second:
                await second.wait_for("listening on")
                await listener.wait_for("(?s)connected to .*connected to ", seconds=30)


async def test_what_the_service_refuses_is_one_sentence(server):
    for arguments, sentence in (
        (("send", "a b", "hi", "--as", "bo"), "chat is 'a b'; a chat is made of letters"),
        (("send", "room1", "hi", "--as", ""), "sender"),
        (("listen", b"a\xff"), "USER is not UTF-8"),
        (("listen", "a/b"), "USER has a slash, which is not allowed"),
        (("listen", "ann", "--chat", "a b"), "--chat is 'a b'; a chat is made of letters"),
        (("listen", "ann", "--chat-only", "a b"), "--chat-only is 'a b'; a chat is made of letters"),
        (
            ("listen", "ann", "--from", "yesterday"),
            "--from is 'yesterday'; latest, earliest, a time (2026-11-25T10:00:00Z), Unix milliseconds or a span (-15m) is needed",
        ),
    ):
        ended = await command(*arguments, "--url", server.url)
        assert (ended.returncode, ended.stdout) == (1, ""), arguments
        assert ended.stderr.startswith(f"kafka-chat: {sentence}"), arguments
        assert ended.stderr.count("\n") == 1, arguments


@pytest.mark.parametrize(
    ("url", "code", "sentence"),
    [
        ("http://127.0.0.1:9", 1, "127.0.0.1:9 cannot be reached: "),
        ("localhost:8001", 2, '--url is "localhost:8001"; http://HOST:PORT or https://HOST:PORT is needed'),
    ],
)
async def test_a_service_that_is_not_there_is_one_sentence(url, code, sentence):
    ended = await command("send", "room1", "hi", "--as", "bo", "--url", url)
    assert ended.returncode == code
    assert ended.stderr.startswith(f"kafka-chat: {sentence}")
    assert ended.stderr.count("\n") == 1


async def test_check_finds_nothing_wrong_with_a_broker_and_changes_nothing(kafka, tmp_path):
    before = chat_topics(kafka)
    ended = await command("check", "--bootstrap", kafka.bootstrap, "--json")
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert any(kafka.bootstrap.split(",")[0] in finding["sentence"] for finding in found)
    assert [finding["subject"] for finding in found] == ["settings", "files", "brokers", "topics", "subscriptions"]
    assert all(finding["ok"] for finding in found), found
    assert (ended.returncode, ended.stderr) == (0, "")
    assert chat_topics(kafka) == before


def chat_topics(kafka):
    """Return all topics but the brokers' own: they make `__consumer_offsets` as soon as any client is there for long enough."""
    return {topic: partitions for topic, partitions in kafka.topics().items() if not topic.startswith("__")}


async def test_check_says_what_is_wrong_with_the_subscriptions_topic(kafka, chats, tmp_path):
    topic = f"{chats.prefix}wrong"
    kafka.create_topic(topic, 2)
    config = tmp_path / "wrong.yaml"
    config.write_text(f"kafka: {{bootstrap_servers: '{kafka.bootstrap}'}}\nsubscriptions: {{topic: {topic}}}\nchats: {{prefix: other.}}\n")
    ended = await command("check", "--config", str(config))
    assert ended.returncode == 1
    assert f"WRONG  subscriptions: the subscriptions topic {topic} has 2 partitions; exactly one is needed\n" in ended.stdout


async def test_check_ends_in_time_without_brokers():
    ended = await command("check", "--bootstrap", "127.0.0.1:9")
    assert ended.returncode == 1
    assert "WRONG  brokers: 127.0.0.1:9: " in ended.stdout
    assert ended.stderr == ""


async def test_check_without_a_broker_address_is_a_matter_of_settings():
    ended = await command("check")
    assert ended.returncode == 2
    assert ended.stderr.startswith("kafka-chat: no broker is named: name one by --bootstrap HOST:PORT, ")
