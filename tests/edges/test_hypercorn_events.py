"""An unending response under hypercorn: over HTTP/1.0 and HTTP/1.1, on our server and on another."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from quart import request
from trio.testing import wait_all_tasks_blocked

from kafka_chat.settings.model import Limits
from kafka_chat.web.ports import ADMISSION
from kafka_chat.web.server.connection import ChatTCPServer
from kafka_chat.web.server.policy import CONNECTION
from kafka_chat.web.streams.event_sink import AsgiEventsSink, ConnectionEventsSink
from kafka_chat.web.streams.event_stream import ChatHTTPConnection, EventStream
from tests.edges.small_app import Served, serving_small
from tests.support.deadlines import HANG_SECONDS
from tests.support.raw_client import open_raw

PATH = "/events"


@pytest.fixture
def certificate() -> tuple[str, str]:
    """A certificate of our own for localhost, and its key."""
    folder = Path(__file__).parents[1] / "support" / "localhost"
    return str(folder / "certificate.pem"), str(folder / "key.pem")


@asynccontextmanager
async def serving_events(**options: Any) -> AsyncIterator[tuple[Served, list[ChatTCPServer]]]:
    """The small app, with a stream of events; and the connections that asked for it."""
    async with serving_small(**options) as served:
        served.app.asgi_http_class = ChatHTTPConnection
        asked: list[ChatTCPServer] = []

        @served.app.get(PATH)
        async def events():
            scope = cast("dict[str, Any]", request.scope)
            asked.append(scope["state"].get(CONNECTION))
            scope[ADMISSION] = served.service.admit("ann")
            return EventStream()

        yield served, asked


Events = AsgiEventsSink | ConnectionEventsSink


async def the_sink(served: Served, kind: type[Events] = ConnectionEventsSink) -> Events:
    sink = await served.service.sink()
    assert isinstance(sink, kind)
    return sink


async def read_until(stream: trio.abc.Stream, end: bytes) -> bytes:
    data = b""
    with trio.fail_after(HANG_SECONDS):
        while end not in data:
            piece = await stream.receive_some(65536)
            assert piece, data
            data += piece
    return data


async def test_over_http_1_1_events_come_in_chunks_and_the_connection_is_free_afterwards():
    async with serving_events() as (served, asked), await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
        await stream.send_all(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sink = await the_sink(served)
        sink.offer(b"data: 1\n\n")
        assert await sink.flush()
        head = await read_until(stream, b"data: 1\n\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"transfer-encoding: chunked\r\n" in head.lower()
        assert b"\r\n9\r\ndata: 1\n\n\r\n" in head
        option = asked[0].bare_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert option == 30_000  # a client that has vanished is noticed
        await sink.close(1000, "until is reached")
        assert (await read_until(stream, b"0\r\n\r\n")) == b"0\r\n\r\n"
        await served.service.empty()
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"Consumer is running" in await read_until(stream, b"}")


async def test_under_tls_events_come_in_chunks_too(certificate: tuple[str, str]):
    context = ssl.create_default_context(cafile=certificate[0])
    context.check_hostname = False
    async with serving_events(certificate=certificate) as (served, _):
        tcp = await trio.open_tcp_stream("127.0.0.1", served.port)
        stream = trio.SSLStream(tcp, context, https_compatible=True)
        await stream.send_all(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sink = await the_sink(served)
        sink.offer(b"data: 1\n\n")
        assert await sink.flush()
        assert b"\r\n9\r\ndata: 1\n\n\r\n" in await read_until(stream, b"data: 1\n\n\r\n")
        await sink.close(1012, "restart")
        assert await read_until(stream, b"0\r\n\r\n") == b"0\r\n\r\n"
        await stream.aclose()
        await served.service.empty()


async def test_over_http_1_0_events_come_until_the_connection_ends():
    async def say_and_leave(service, accept, inbox):
        sink = await accept()
        sink.offer(b"data: 1\n\n")
        await sink.close(1012, "restart")

    async with serving_events(session=say_and_leave) as (served, _), await trio.open_tcp_stream("127.0.0.1", served.port) as client:
        await client.send_all(f"GET {PATH} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        data = b""
        with trio.fail_after(HANG_SECONDS):
            while piece := await client.receive_some(65536):
                data += piece
        assert data.startswith(b"HTTP/1.1 200 ")
        assert data.endswith(b"\r\n\r\ndata: 1\n\n")
        await served.service.empty()


async def test_a_client_that_leaves_is_noticed():
    async with serving_events() as (served, _):
        async with await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
            await stream.send_all(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await the_sink(served)
        await served.service.empty()
        assert served.service.disconnects == [1005]


async def test_who_reads_nothing_is_cut_off():
    async with serving_events(limits=Limits(write_seconds=0.3)) as (served, _), open_raw(served.url, receive_buffer=4096) as client:
        await client.send(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sink = await the_sink(served)
        sink.offer(b"data: " + b"x" * 10_000_000 + b"\n\n")
        with trio.move_on_after(10):
            assert not await sink.flush()
        await served.service.empty()
        assert served.service.telemetry.aborted == ["write_seconds"]


@pytest.mark.parametrize(("ours", "version"), [(True, "1.0"), (False, "1.0"), (False, "1.1")])
async def test_over_http_1_0_and_on_another_server_events_go_through_the_server(version: str, *, ours: bool):
    async with serving_events(ours=ours) as (served, _), open_raw(served.url) as client:
        await client.send(f"GET {PATH} HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        sink = await the_sink(served, AsgiEventsSink)
        for number in range(3):
            assert not sink.offer(b"data: %d\n\n" % number)
            assert await sink.flush()
        assert sink.owed == 0
        while b"data: 2\n\n" not in client._buffer:
            assert await client._read_more()
        await client.half_close()
        await served.service.empty()
        assert served.service.disconnects == [1005]


async def test_who_reads_nothing_over_http_1_0_is_cut_off():
    async with serving_events(limits=Limits(write_seconds=0.3)) as (served, _), open_raw(served.url, receive_buffer=4096) as client:
        await client.send(f"GET {PATH} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        sink = await the_sink(served, AsgiEventsSink)
        sink.offer(b"data: " + b"x" * 10_000_000 + b"\n\n")
        with trio.move_on_after(30):
            assert not await sink.flush()
        await served.service.empty()
        assert sink.owed == 0
        assert served.service.telemetry.aborted == ["write_seconds"]


@pytest.mark.parametrize("reading", [True, False])
async def test_a_service_that_goes_down_leaves_no_stream(*, reading: bool):
    async with serving_events(drain_seconds=0.2) as (served, _), open_raw(served.url, receive_buffer=4096) as client:
        await client.send(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sink = await the_sink(served)
        assert served.service.waits, "nobody watches for the shutdown"
        if reading:
            sink.offer(b"data: 1\n\n")
        else:
            sink.offer(b"data: " + b"x" * 10_000_000 + b"\n\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.flush)
            await wait_all_tasks_blocked()
            served.down.set()
            await served.service.waits[0]()
            sink.abort()
        await served.service.empty()
