"""SIGTERM and Ctrl-C: no client is admitted, all are notified, stuck ones are aborted, the exit code is 0."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest
import trio

from tests.support.brokers import KafkaCluster
from tests.support.chats import Chats, message
from tests.support.clients import BrokenStream, Opcode, RawClient, close_code, http, open_raw, receive_path
from tests.support.deadlines import HANG_SECONDS
from tests.support.serving import ChildServer, spawned, spawned_hypercorn, until_ready

Spawned = Callable[..., AbstractAsyncContextManager[ChildServer]]

RESTARTS = (1012, "the service is restarting; reconnect")


@pytest.fixture(params=[spawned, spawned_hypercorn], ids=["our_command", "plain_hypercorn"])
def command(request: pytest.FixtureRequest) -> Spawned:
    return request.param


def log_lines(server: ChildServer, event: str) -> list[str]:
    return [line for line in server.stderr.splitlines() if f" {event} " in line]


async def nobody_let_in(server: ChildServer, seconds: float) -> None:
    """Wait until who comes is refused.

    Under plain hypercorn its parent process keeps the listening socket, so there a connection is made, and not served.
    """
    with trio.fail_after(seconds):
        while True:
            try:
                async with open_raw(server.url) as client:
                    await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                    with trio.move_on_after(0.5):
                        await client.read_response()
                        continue
                    return
            except (OSError, BrokenStream, trio.BrokenResourceError):
                return


@asynccontextmanager
async def open_stuck(server: ChildServer, kafka: KafkaCluster, chats: Chats) -> AsyncIterator[None]:
    """While the block runs, be a client that does not read, and is owed more than the kernel takes."""
    kafka.create_topic(chats.topic("big"))
    await until_ready(server)
    assert (await http(server.url, "POST", "/subscribing/stuck?topic=big")).status == 200
    async with open_raw(server.url, receive_path("stuck"), receive_buffer=4096):
        big = message("x" * 500_000)
        await trio.to_thread.run_sync(lambda: kafka.produce_many(chats.topic("big"), [big] * 16, partition=0))
        with trio.fail_after(HANG_SECONDS):
            while b"kafka_chat_owed_bytes 0.0" in (await http(server.url, "GET", "/metrics")).body:  # noqa: ASYNC110 - it is asked
                await trio.sleep(0.05)
        yield


@pytest.mark.parametrize(("number", "drain_seconds"), [(signal.SIGTERM, 1.0), (signal.SIGINT, 5.0)])
@pytest.mark.promise("p-drain")
async def test_every_session_is_told_and_who_is_stuck_is_cut(
    kafka: KafkaCluster, chats: Chats, command: Spawned, number: signal.Signals, drain_seconds: float
) -> None:
    """Plain hypercorn's graceful timeout is 3 s, less than our default of 5."""
    bound = drain_seconds if command is spawned else min(drain_seconds, 3)
    kafka.create_topic(chats.topic("global"))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(command(settings=chats.settings_for(kafka, server__drain_seconds=drain_seconds)))
        clients = [await stack.enter_async_context(open_raw(server.url, receive_path(f"user{n}"))) for n in range(50)]
        await stack.enter_async_context(open_stuck(server, kafka, chats))
        kafka.produce(chats.topic("global"), message("hello"))
        for client in clients:
            assert json.loads(await client.next_text())["text"] == "hello"
        began = trio.current_time()
        os.kill(server.pid, number)
        ends = []

        async def read_end(client: RawClient) -> None:
            ends.append([close_code(frame) if frame.opcode is Opcode.CLOSE else frame for frame in await client.read_to_end()])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(nobody_let_in, server, 2)
            for client in clients:
                nursery.start_soon(read_end, client)
        assert ends == [[RESTARTS]] * len(clients)
        assert await server.wait(seconds=bound + 4) == 0
        assert trio.current_time() - began > bound - 0.5
        closed = log_lines(server, "session.closed")
        assert len(closed) == len(clients) + 1
        assert sum("code=1012" in line for line in closed) >= len(clients)
        assert "Traceback" not in server.stderr


async def test_a_request_that_is_under_way_is_answered(kafka: KafkaCluster, chats: Chats, command: Spawned):
    kafka.create_topic(chats.topic("room"))
    body = json.dumps({"sender": "ann", "text": "the last word"}).encode()
    head = f"POST /send-message/chat/room HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    async with command(settings=chats.settings_for(kafka, sending__enabled=True)) as server, open_raw(server.url) as client:
        await client.send(head.encode() + body[:10])
        await http(server.url, "GET", "/health")  # so the other one has been read
        server.terminate()
        await nobody_let_in(server, 2)
        await client.send(body[10:])
        response = await client.read_response()
        assert response.status == 200, response
        await client.wait_ended()
        assert await server.wait(seconds=5) == 0
    assert b"the last word" in kafka.records(chats.topic("room"))[0].value


async def test_a_second_ctrl_c_ends_it_at_once(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    settings = chats.settings_for(kafka, server__drain_seconds=30.0)
    async with spawned(settings=settings) as server, open_stuck(server, kafka, chats):
        os.kill(server.pid, signal.SIGINT)
        await nobody_let_in(server, 2)
        assert server.returncode is None
        os.kill(server.pid, signal.SIGINT)
        assert await server.wait(seconds=1) == 130


@pytest.mark.promise("p-drain-in-time")
async def test_it_ends_in_time_though_the_broker_hangs_and_clients_are_stuck(chats: Chats, hanging: KafkaCluster) -> None:
    """A request that waits for the broker is cut, too, once the drain is over."""
    hanging.create_topic(chats.topic("global"))
    settings = chats.settings_for(hanging, server__drain_seconds=1.0)
    async with (
        spawned(settings=settings) as server,
        open_stuck(server, hanging, chats),
        open_raw(server.url, receive_path("well")) as well,
        open_raw(server.url) as asking,
    ):
        hanging.freeze()
        try:
            await asking.send(b"POST /subscribing/ann?topic=room HTTP/1.1\r\nHost: x\r\n\r\n")
            await http(server.url, "GET", "/health")
            began = trio.current_time()
            server.terminate()
            assert [close_code(frame) for frame in await well.read_to_end(seconds=1.5)] == [RESTARTS]
            assert await server.wait() == 0
            took = trio.current_time() - began
        finally:
            hanging.thaw()
        assert took < 1 + 1 + 2.5  # to drain; hypercorn's grace on top; to let go of the Kafka clients
        assert "Traceback" not in server.stderr
