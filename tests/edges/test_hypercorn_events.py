"""A response that goes on and on, under hypercorn: over HTTP/1.0, HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded
from quart import request

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
            asked.append(scope["state"][CONNECTION])
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


class Http2:
    """A client of HTTP/2, that gives no room by itself.

    Attributes:
        data: what came on each stream.
        status: of each.
        ended: streams that the server has ended.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.data: dict[int, bytes] = {}
        self.status: dict[int, str] = {}
        self.ended: set[int] = set()
        self.wire = H2Connection(config=H2Configuration(client_side=True, header_encoding="utf-8"))
        self._stream = stream

    async def send(self) -> None:
        await self._stream.send_all(self.wire.data_to_send())

    async def get(self, stream_id: int) -> None:
        headers = [(":method", "GET"), (":scheme", "http"), (":path", PATH), (":authority", "x")]
        self.wire.send_headers(stream_id, headers, end_stream=True)
        await self.send()

    async def read_until(self, true: Any) -> None:
        with trio.fail_after(HANG_SECONDS):
            while not true():
                piece = await self._stream.receive_some(65536)
                assert piece, "the server ended the connection"
                for event in self.wire.receive_data(piece):
                    if isinstance(event, DataReceived):
                        self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
                    elif isinstance(event, ResponseReceived):
                        self.status[event.stream_id] = dict(event.headers)[":status"]
                    elif isinstance(event, StreamEnded):
                        self.ended.add(event.stream_id)
                await self.send()


@asynccontextmanager
async def open_http2(served: Served) -> AsyncIterator[Http2]:
    async with await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
        client = Http2(stream)
        client.wire.initiate_connection()
        client.wire.increment_flow_control_window(1 << 30)  # of the connection; each stream has its 64 KiB
        await client.send()
        yield client


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
        assert data.endswith(b"\n\ndata: 1\n\n")
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


async def test_over_http2_a_stream_that_is_reset_leaves_the_others_alone():
    async with serving_events() as (served, _), open_http2(served) as client:
        await client.get(1)
        first = await the_sink(served, AsgiEventsSink)
        await client.get(3)
        second = await the_sink(served, AsgiEventsSink)
        for sink in (first, second):
            sink.offer(b"data: 1\n\n")
            assert await sink.flush()
        await client.read_until(lambda: all(client.data.get(number, b"").endswith(b"data: 1\n\n") for number in (1, 3)))
        assert client.status == {1: "200", 3: "200"}
        client.wire.reset_stream(1)
        await client.send()
        await served.service.until(lambda: served.service.names == 1)
        assert served.service.disconnects == [1005]
        second.offer(b"data: 2\n\n")
        assert await second.flush()
        await client.read_until(lambda: client.data[3].endswith(b"data: 2\n\n"))
        await second.close(1012, "restart")
        await client.read_until(lambda: 3 in client.ended)


async def test_over_http2_a_stream_that_is_not_read_ends_alone_and_with_its_end_to_be_read_later():
    async with serving_events(limits=Limits(write_seconds=0.3)) as (served, _), open_http2(served) as client:
        await client.get(1)
        stuck = await the_sink(served, AsgiEventsSink)
        await client.get(3)
        live = await the_sink(served, AsgiEventsSink)
        stuck.offer(b"data: " + b"x" * 200_000 + b"\n\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stuck.flush)
            await served.service.until(lambda: served.service.names == 1)
        assert served.service.telemetry.aborted == ["write_seconds"]
        assert stuck.owed == 0
        live.offer(b"data: 1\n\n")
        assert await live.flush()
        await client.read_until(lambda: client.data.get(3, b"").endswith(b"data: 1\n\n"))
        assert 1 not in client.ended
        client.wire.increment_flow_control_window(1 << 20, 1)
        await client.send()
        await client.read_until(lambda: 1 in client.ended)
        assert 65_535 < len(client.data[1]) < 120_000  # its window, and what hypercorn holds for it


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
            await trio.sleep(0.1)
            served.down.set()
            await served.service.waits[0]()
            sink.abort()
        await served.service.empty()
