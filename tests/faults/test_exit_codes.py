"""A failed start of any command is one sentence and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from tests.support.brokers import Broker
from tests.support.chats import Chats, with_overrides
from tests.support.clients import http
from tests.support.serving import ChildServer, child, spawned

COMMAND = str(Path(sys.executable).with_name("kafka-chat"))
# Without a process of its own for the one worker: hypercorn 0.18 forgets how that one ended.
HYPERCORN = [sys.executable, "-m", "hypercorn", "-k", "trio", "-w", "0", "--bind", "127.0.0.1:0", "kafka_chat.asgi:app"]


def only_line(server: ChildServer) -> str:
    """Return what it said on stderr, which has to be one line."""
    assert server.stdout == ""
    (line,) = server.stderr.splitlines()
    return line


async def test_a_port_that_is_in_use_is_said(kafka: Broker, chats: Chats) -> None:
    taken = trio.socket.socket()
    await taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    settings = with_overrides(chats.settings_for(kafka), server__port=port)
    with taken:
        async with child([COMMAND, "serve"], settings=settings) as server:
            assert await server.wait() == 1
            assert f"port {port} on 127.0.0.1 is in use; choose another with --port" in server.stderr
            assert "Traceback" not in server.stderr
            assert server.stdout == ""


@pytest.mark.parametrize("address", ["localhost:port", "localhost:99999", "a b:9092", ","])
async def test_a_broker_address_that_is_none_is_said(address: str) -> None:
    async with child([COMMAND, "serve", "--port", "0", "--bootstrap", address]) as server:
        assert await server.wait() == 2
        assert "--bootstrap" in only_line(server)


async def test_a_broker_that_has_no_such_name_is_waited_for() -> None:
    async with spawned("--bootstrap", "no-such-host.invalid:9092") as server:
        assert (await http(server.url, "GET", "/health")).json() == {"status": "Consumer is running"}
        ready = await http(server.url, "GET", "/ready")
        assert ready.status == 503
        server.terminate()
        assert await server.wait() == 0
        assert "Traceback" not in server.stderr


async def test_a_typo_in_the_file_is_said(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("limits:\n  write_second: 3\n")
    async with child([COMMAND, "serve", "--config", str(file)]) as server:
        assert await server.wait() == 2
        line = only_line(server)
        assert f"{file}, line 2" in line
        assert "limits.write_seconds" in line


async def test_under_hypercorn_a_broker_has_to_be_named() -> None:
    async with child(HYPERCORN) as server:
        assert await server.wait() == 2
        assert "KAFKA_CHAT_KAFKA__BOOTSTRAP_SERVERS" in only_line(server)


async def test_under_hypercorn_a_wrong_setting_is_said() -> None:
    async with child(HYPERCORN, env={"KAFKA_CHAT_SERVER__DRAIN_SECONDS": "soon"}) as server:
        assert await server.wait() == 2
        line = only_line(server)
        assert "KAFKA_CHAT_SERVER__DRAIN_SECONDS" in line
        assert "soon" in line
