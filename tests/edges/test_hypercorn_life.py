"""Start, shutdown, failure, and what is left of a request while its session runs."""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import weakref
from contextlib import asynccontextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import trio
from quart import websocket
from wsproto.frame_protocol import FrameProtocol

from kafka_chat.delivery.records.frames import text_header
from kafka_chat.errors import ServiceFailed
from kafka_chat.settings.model import ServerSettings, Settings
from kafka_chat.web.ports import ADMISSION
from kafka_chat.web.server.connection import ChatTCPServer
from kafka_chat.web.server.serve import serve
from tests.edges.small_app import PATH, SmallService, serving_small, small_app
from tests.support.calls import until
from tests.support.deadlines import HANG_SECONDS
from tests.support.raw_client import Opcode, client_frame, close_code, handshake_request, open_raw

ROOT = Path(__file__).parents[2]


async def test_serve_tells_its_address_and_ends_when_told():
    service = SmallService(Settings(server=ServerSettings(port=0, drain_seconds=0.2)))
    down = trio.Event()
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(partial(serve, small_app(service), service.settings, shutdown_trigger=down.wait))
        assert urls[0].startswith("http://127.0.0.1:")
        async with open_raw(urls[0]) as client:
            await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            response = await client.read_response()
            assert (response.status, response.headers.get("server")) == (200, None)
            down.set()
            await client.wait_ended()


@pytest.mark.promise("p-drain")
async def test_sessions_learn_of_the_shutdown_while_the_listener_is_closed_already():
    async with serving_small() as served, open_raw(served.url, PATH) as client:
        sink = await served.service.sink()
        served.down.set()
        with trio.fail_after(HANG_SECONDS):
            await served.service.waits[0]()
        with pytest.raises(OSError, match=r"refused|reset|all attempts"):
            await trio.open_tcp_stream("127.0.0.1", served.port)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.close, 1012, "restart")
            frames = await client.read_to_end()
        assert close_code(frames[0]) == (1012, "restart")


async def test_a_stuck_client_does_not_keep_the_server_up():
    async with serving_small(drain_seconds=0.2) as served, open_raw(served.url, PATH, receive_buffer=4096):
        sink = await served.service.sink()
        while sink.offer(text_header(100_000) + b"x" * 100_000):
            pass
        begun = trio.current_time()
        served.down.set()
        await served.service.empty()
        assert trio.current_time() - begun < 5


def failing(reason: str) -> pytest.RaisesGroup[ServiceFailed]:
    """Expect the error that ends the server, in whatever groups it comes."""
    return pytest.RaisesGroup(pytest.RaisesExc(ServiceFailed, match=reason), allow_unwrapped=True, flatten_subgroups=True)


async def test_a_service_that_breaks_ends_the_server_with_an_error():
    service = SmallService(Settings(server=ServerSettings(port=0)))
    with failing("the tail is broken"):
        async with trio.open_nursery() as nursery:
            urls = await nursery.start(partial(serve, small_app(service), service.settings, shutdown_trigger=trio.sleep_forever))
            async with open_raw(urls[0], PATH) as client:
                await service.sink()
                service.crash.set()
                await client.wait_ended()
                await trio.sleep_forever()  # until the server ends it
    assert service.names == 0


async def test_a_service_that_cannot_be_opened_ends_the_server_with_an_error():
    service = SmallService(Settings(server=ServerSettings(port=0)))
    app = small_app(service)

    @asynccontextmanager
    async def broken():
        raise RuntimeError("no file left")
        yield

    app.open_service = broken
    with failing("no file left"):
        await serve(app, service.settings, shutdown_trigger=trio.sleep_forever)


@asynccontextmanager
async def plain_command(*arguments: str, **environment: str):
    """Run the plain hypercorn command; yields its process and its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "--bind", f"127.0.0.1:{port}", *arguments, "tests.edges.plain_app:app"]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, cwd=ROOT, env={**os.environ, **environment}, check=False))
        with trio.fail_after(HANG_SECONDS):
            while True:
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    await trio.sleep(0.05)
        yield process, f"http://127.0.0.1:{port}"
        with trio.move_on_after(10) as scope:
            await process.wait()
        if scope.cancelled_caught:
            process.kill()
            pytest.fail("the command did not end")


@pytest.mark.promise("p-hypercorn")
async def test_the_plain_command_drains_like_ours_and_survives_strangers():
    async with plain_command() as (process, url), open_raw(url, PATH) as client:
        async with open_raw(url) as stranger:
            await stranger.send(handshake_request(PATH) + client_frame(Opcode.TEXT, b"early"))
            await stranger.wait_ended()
        await client.ping()
        process.send_signal(signal.SIGTERM)
        frames = await client.read_to_end()
        assert [close_code(frame) for frame in frames if frame.opcode is Opcode.CLOSE] == [(1012, "restart")]
    assert process.returncode == 0


@pytest.mark.parametrize(("workers", "codes"), [("0", {1}), ("1", {0, 1})])
async def test_the_plain_command_ends_if_the_service_breaks(workers: str, codes: set[int]):
    """With a worker process hypercorn 0.18 forgets the code that it ended with: 0."""
    async with plain_command("-w", workers, CRASH_SECONDS="2") as (process, _url):
        pass
    assert process.returncode in codes


async def test_nothing_of_the_request_is_left_while_the_session_runs():
    async with serving_small() as served:
        seen = []

        @served.app.websocket("/seen")
        async def remember() -> None:
            websocket.scope[ADMISSION] = served.service.admit("ann")
            seen.append(weakref.ref(websocket._get_current_object()))

        async with open_raw(served.url, "/seen") as client:
            await served.service.sink()
            await client.ping()
            gc.collect()
            assert seen[0]() is None


async def test_connections_that_are_over_are_forgotten():
    def alive() -> int:
        gc.collect()
        return sum(isinstance(thing, ChatTCPServer) for thing in gc.get_objects())

    async with serving_small() as served:
        before = alive()
        for number in range(30):
            async with open_raw(served.url, PATH) as client:
                await served.service.sink()
                if number % 2:
                    client.reset()
        await served.service.empty()
        served.service.waits.clear()
        await until(lambda: alive() == before)  # they linger for a while


async def test_a_copy_of_the_scope_holds_the_same_connection():
    async with serving_small() as served:
        original = served.app.asgi_app

        async def proxied(scope, receive, send):
            copied = deepcopy({"state": scope["state"]})
            assert copied["state"] is not scope["state"]
            await original({**scope, **copied}, receive, send)

        served.app.asgi_app = proxied
        async with open_raw(served.url, PATH) as client:
            assert (await served.service.sink()).offer(text_header(2) + b"hi")
            assert await client.next_text() == "hi"


def connections() -> list[ChatTCPServer]:
    return [each for each in gc.get_objects() if type(each) is ChatTCPServer]


@pytest.mark.parametrize("path", [PATH, None])
async def test_an_ended_connection_is_freed_without_a_search_for_cycles(path: str | None):
    async with serving_small() as served:
        gc.collect()
        assert connections() == []
        gc.disable()
        try:
            freed = trio.Event()
            async with open_raw(served.url, path) as client:
                if path is None:
                    await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert (await client.read_response()).status == 200
                else:
                    assert (await served.service.sink()).offer(text_header(2) + b"hi")
                    assert await client.next_text() == "hi"
                (connection,) = connections()
                weakref.finalize(connection, freed.set)
                del connection
            with trio.fail_after(HANG_SECONDS):
                await freed.wait()
        finally:
            gc.enable()


def parsers() -> int:
    return sum(type(each) is FrameProtocol and not each.client for each in gc.get_objects())


@pytest.mark.parametrize("how", ["is cut", "closes", "half-closes"])
async def test_the_parser_of_an_ended_websocket_is_freed_without_a_search_for_cycles(how: str):
    async with serving_small() as served:
        gc.collect()
        before = parsers()
        gc.disable()
        try:
            for _ in range(5):
                async with open_raw(served.url, PATH) as client:
                    await served.service.sink()
                    await client.ping()
                    if how == "is cut":
                        client.reset()
                    elif how == "closes":
                        await client.send(client_frame(Opcode.CLOSE, b"\x03\xe8"))
            await served.service.empty()
            served.service.waits.clear()
            await until(lambda: parsers() == before)  # their connections linger for a while
        finally:
            gc.enable()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.promise("p-memory-of-sockets")
async def test_an_idle_socket_costs_little_memory(capsys: pytest.CaptureFixture[str]):
    count = 500
    async with serving_small() as served:
        streams = [await trio.open_tcp_stream("127.0.0.1", served.port) for _ in range(10)]
        before = resident_bytes()
        sockets = []
        request = (
            f"GET {PATH} HTTP/1.1\r\nHost: chat.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: https://chat.example.com\r\n"
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36\r\n\r\n"
        ).encode()
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", served.port))
            sock.sendall(request)
            sockets.append(sock)
            await trio.lowlevel.checkpoint()
        await served.service.until(lambda: len(served.service.sinks) == count, seconds=20)
        gc.collect()
        each = (resident_bytes() - before) / count / 1024
        with capsys.disabled():
            print(f"\n    {each:.1f} KiB an idle WebSocket, server side and the test's socket")  # noqa: T201
        assert each < 60
        for sock in sockets:
            sock.close()
        for stream in streams:
            await stream.aclose()
