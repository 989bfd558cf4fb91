"""Workers that end, are told to end, or lose their supervisor."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from tests.support.brokers import KafkaCluster
from tests.support.calls import meanwhile, metrics, until
from tests.support.chats import Chats, message
from tests.support.clients import BrokenStream, Opcode, RawClient, close_code, http, open_raw, receive_path
from tests.support.deadlines import HANG_SECONDS
from tests.support.serving import ChildServer, child, spawned, until_ready
from tests.support.workers import is_running, serving_pids, sockets_on_each, until_gone

RESTARTS = (1012, "the service is restarting; reconnect")


@pytest.fixture
async def server(kafka: KafkaCluster, chats: Chats) -> AsyncIterator[ChildServer]:
    """Two workers on real Kafka, ready."""
    kafka.create_topic(chats.topic("global"))
    async with spawned(settings=chats.settings_for(kafka, server__workers=2)) as server:
        for _ in range(12):
            await until_ready(server)
        yield server


async def ends(clients: list[RawClient]) -> list[tuple[int, str]]:
    """Return with which close frames the server ends these."""
    found = []
    for client in clients:
        last = (await client.read_to_end())[-1]
        assert last.opcode is Opcode.CLOSE
        found.append(close_code(last))
    return found


def refuses(server: ChildServer) -> bool:
    host, port = server.url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except ConnectionRefusedError:
        return True
    return False


async def come_back(stack: AsyncExitStack, server: ChildServer) -> RawClient:
    """Connect as clients do that were cut: the kernel resets who waited for the one that is killed."""
    while True:
        try:
            return await stack.enter_async_context(open_raw(server.url, receive_path("back")))
        except (BrokenStream, OSError):
            await trio.sleep(0.01)


async def test_one_that_is_killed_takes_nobody_along(server: ChildServer, kafka: KafkaCluster, chats: Chats) -> None:
    async with sockets_on_each(server) as clients:
        killed, other = clients
        os.kill(killed, signal.SIGKILL)
        for n in range(20):
            kafka.produce(chats.topic("global"), message(f"news {n}"))
        began = trio.current_time()
        for client in clients[killed]:
            await client.wait_ended(seconds=1)
            async with AsyncExitStack() as stack:
                back = await come_back(stack, server)
                kafka.produce(chats.topic("global"), message("welcome"))
                while json.loads(await back.next_text())["text"] != "welcome":
                    pass  # news that its worker has not read yet
        assert trio.current_time() - began < 5
        for client in clients[other]:
            texts = [json.loads(await client.next_text())["text"] for _ in range(20 + len(clients[killed]))]
            assert texts == [f"news {n}" for n in range(20)] + ["welcome"] * len(clients[killed])
        await server.wait_for(rf"worker.lost worker=\d pid={killed} reason=\"killed by SIGKILL\" seconds=\S+ again_in_seconds=0.0\n")
        await until(lambda: killed not in serving_pids(server).values())
        found = await metrics(server.url)
        assert found['kafka_chat_workers_lost_total{worker="supervisor"}'] == 1
        assert found['kafka_chat_workers_serving{worker="supervisor"}'] == 2


async def test_who_comes_while_a_worker_starts_is_served_by_the_others(server: ChildServer) -> None:
    """Nobody waits for a worker that is not there yet."""
    pid = serving_pids(server)[0]
    os.kill(pid, signal.SIGKILL)
    await server.wait_for(f"worker.lost worker=0 pid={pid}")
    for _ in range(30):
        assert (await http(server.url, "GET", "/health", seconds=1)).status == 200
    with trio.fail_after(HANG_SECONDS):
        while serving_pids(server)[0] == pid:
            assert (await http(server.url, "GET", "/health", seconds=1)).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_all(server: ChildServer, number: signal.Signals) -> None:
    pids = list(serving_pids(server).values())
    async with sockets_on_each(server) as clients:
        os.kill(server.pid, number)
        await until(lambda: refuses(server), seconds=1)
        for those in clients.values():
            assert await ends(those) == [RESTARTS] * len(those)
        assert await server.wait(seconds=6) == 0
    assert not any(map(is_running, pids))
    assert server.stderr.count("worker.ended") == 2
    assert "worker.lost" not in server.stderr
    assert "Traceback" not in server.stderr


async def test_a_second_ctrl_c_ends_all_at_once(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    async with spawned(settings=chats.settings_for(kafka, server__workers=2, server__drain_seconds=60.0)) as server:
        pids = list(serving_pids(server).values())
        async with AsyncExitStack() as stack:
            for _ in range(12):  # requests that are never finished, so that the drain has somebody to wait for
                client = await stack.enter_async_context(open_raw(server.url))
                await client.send(b"POST /subscribing/ann HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
            await http(server.url, "GET", "/health")
            os.kill(server.pid, signal.SIGINT)
            await until(lambda: refuses(server), seconds=2)
            assert server.returncode is None
            os.kill(server.pid, signal.SIGINT)
            assert await server.wait(seconds=1) == 130
            await until_gone(pids, seconds=1)


async def test_workers_end_when_their_supervisor_is_killed(server: ChildServer) -> None:
    pids = list(serving_pids(server).values())
    async with sockets_on_each(server) as clients:
        server.kill()
        await server.wait()
        for those in clients.values():
            assert await ends(those) == [RESTARTS] * len(those)
    await until_gone(pids, seconds=6)
    assert refuses(server)


@pytest.mark.promise("p-sighup")
async def test_sighup_replaces_all_and_nobody_is_refused(server: ChildServer) -> None:
    before = serving_pids(server)
    answers = []

    async def ask() -> None:
        answers.append((await http(server.url, "GET", "/health", seconds=3)).status)

    async with sockets_on_each(server) as clients:
        async with meanwhile(ask), meanwhile(ask), meanwhile(ask):
            os.kill(server.pid, signal.SIGHUP)
            await server.wait_for("workers.renewed workers=2")
            for those in clients.values():
                assert await ends(those) == [RESTARTS] * len(those)
        after = serving_pids(server)
        assert set(after) == set(before)
        assert not set(after.values()) & set(before.values())
        await until_gone(list(before.values()), seconds=5)
        assert set(answers) == {200}
        assert len(answers) > 20
        # Each new one served before the old one was told to go.
        lines = [line.split("kafka_chat: ")[1] for line in server.stderr.splitlines() if " worker." in line]
        first, second = after[0], before[0]
        assert _place(lines, f"worker.serving worker=0 pid={first}") < _place(lines, f"worker.ended worker=0 pid={second}")
        assert "worker.lost" not in server.stderr


def _place(lines: list[str], start: str) -> int:
    return next(place for place, line in enumerate(lines) if line.startswith(start))


@pytest.mark.promise("p-sighup")
async def test_sighup_reads_the_settings_again_and_wrong_ones_change_nothing(kafka: KafkaCluster, chats: Chats, tmp_path: Path) -> None:
    kafka.create_topic(chats.topic("global"))
    file = tmp_path / "config.yaml"
    file.write_text("limits:\n  chats_per_user: 1\n")
    async with spawned("--config", str(file), settings=chats.settings_for(kafka, server__workers=2)) as server:
        before = serving_pids(server)
        file.write_text("limits:\n  chat_per_user: 3\n")
        os.kill(server.pid, signal.SIGHUP)
        await server.wait_for(r"workers.not_renewed reason=.*did you mean limits.chats_per_user\?")
        assert serving_pids(server) == before
        file.write_text("limits:\n  chats_per_user: 3\n")
        os.kill(server.pid, signal.SIGHUP)
        await server.wait_for("workers.renewed")
        for chat in ("a", "b"):
            kafka.create_topic(chats.topic(chat))
        await until_ready(server)
        assert (await http(server.url, "POST", "/subscribing/ann?topic=a&topic=b")).status == 200


async def test_a_port_that_other_workers_serve_on_is_in_use(server: ChildServer) -> None:
    port = server.url.rpartition(":")[2]
    command = [os.fspath(Path(sys.executable).with_name("kafka-chat")), "serve", "--embedded", "--port", port]
    for more in (["--workers", "2"], []):
        async with child([*command, *more]) as second:
            assert await second.wait() == 1
            assert second.stderr.splitlines()[-1] == f"kafka-chat: port {port} on 127.0.0.1 is in use; choose another with --port"
            assert second.stdout == ""
