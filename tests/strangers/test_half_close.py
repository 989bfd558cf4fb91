"""A client that half-closes after a whole request gets its answer; an answer that never ends, ends with it."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tests.edges.small_app import serving_small
from tests.support.brokers import EmbeddedBroker
from tests.support.calls import following, running, until
from tests.support.chats import Chats, message
from tests.support.raw_client import RawClient, open_raw
from tests.support.serving import Server

TRIES = 80
HANG_SECONDS = 30.0  # ends a hang; less than the 60 s that a long poll would wait
H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"  # as the JDK's HttpClient offers it


@pytest.fixture
async def server(embedded: EmbeddedBroker, chats: Chats) -> AsyncIterator[Server]:
    """The service, with a room of one message, and a canary that listens all the time."""
    embedded.create_topic(chats.topic("room1"))
    embedded.produce(chats.topic("room1"), message("m0"))
    async with running(chats.settings_for(embedded)) as server, open_raw(server.url, "/receive-message/client/canary") as canary:
        yield server
        await canary.ping()


async def until_taken(server: Server, slots: int) -> None:
    await until(lambda: server.service.slots_taken == slots, seconds=HANG_SECONDS)


async def ask(url: str, request: bytes) -> bytes:
    """Send a request and FIN at once, and return all that comes."""
    async with open_raw(url) as client:
        await client.send(request)
        await client.half_close()
        return await client.wait_ended(seconds=HANG_SECONDS)


def request(method: str, target: str, *headers: str, body: str = "") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x", *headers, *([f"Content-Length: {len(body)}"] if body else [])]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@pytest.mark.promise("p-fin")
async def test_80_requests_with_a_fin_behind_them_are_all_done_and_answered(server: Server):
    answered: list[bytes] = []

    async def subscribe(number: int) -> None:
        answered.append(await ask(server.url, request("POST", f"/subscribing/user{number}?topic=room{number}")))

    async with trio.open_nursery() as nursery:
        for number in range(TRIES):
            nursery.start_soon(subscribe, number)
    assert [answer[:13] for answer in answered] == [b"HTTP/1.1 200 "] * TRIES
    for number in (0, TRIES - 1):
        assert f"room{number}" in await following(server.url, f"user{number}")


@pytest.mark.parametrize("target", ["/health", "/history/room1", "/openapi.json", "/kafka-chat.js", "/metrics", "/nowhere"])
async def test_a_finite_answer_is_written_in_full_behind_a_fin(target: str, server: Server):
    answer = await ask(server.url, request("GET", target))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 404 "))
    assert f"content-length: {len(body)}".encode() in head.lower()


@pytest.mark.promise("p-fin")
async def test_pipelined_requests_are_all_answered_behind_a_fin(server: Server):
    asked = request("POST", "/subscribing/pia?topic=room1", body="") + request("GET", "/subscribing/pia") + request("GET", "/health")
    answer = await ask(server.url, asked)
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert answer.endswith(b'{"status":"Consumer is running"}')


@pytest.mark.promise("p-fin-cuts")
async def test_of_pipelined_requests_the_one_that_is_cut_by_the_fin_is_not_done(server: Server):
    asked = request("GET", "/health") + request("POST", "/subscribing/cut?topic=room1", body="xx")[:-1]
    answer = await ask(server.url, asked)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert "room1" not in await following(server.url, "cut")


@pytest.mark.parametrize("keep", ["", "Connection: close", H2C])
async def test_a_large_answer_reaches_a_slow_reader_behind_a_fin(keep: str):
    async with serving_small() as served, open_raw(served.url, receive_buffer=4096) as client:
        await client.send(request("GET", "/large", *([keep] if keep else [])))
        await client.half_close()
        assert len((await client.read_response(seconds=HANG_SECONDS)).body) == 5_000_000
        assert await client.wait_ended() == b""


async def test_under_tls_a_close_notify_behind_a_request_is_a_fin_too():
    folder = Path(__file__).parents[1] / "support" / "localhost"
    certificate = str(folder / "certificate.pem")
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    async with serving_small(certificate=(certificate, str(folder / "key.pem"))) as served:
        tcp = await trio.open_tcp_stream("127.0.0.1", served.port)
        stream = trio.SSLStream(tcp, context, https_compatible=True)
        await stream.send_all(request("GET", "/large"))
        with suppress(ssl.SSLWantReadError):  # for the server's close_notify, which comes behind its answer
            stream._ssl_object.unwrap()
        await tcp.send_all(stream._outgoing.read())
        client = RawClient(stream)  # type: ignore[arg-type]
        assert len((await client.read_response(seconds=HANG_SECONDS)).body) == 5_000_000
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize(
    "cut",
    [
        b"GE",
        request("GET", "/health")[:-1],
        request("POST", "/subscribing/cut?topic=room1", body="hello")[:-1],
        request("POST", "/subscribing/cut?topic=room1", "Transfer-Encoding: chunked") + b"2\r\nhi\r\n0\r\n",
    ],
)
@pytest.mark.promise("p-fin-cuts")
async def test_a_fin_before_a_request_is_whole_has_no_answer_and_nothing_done(cut: bytes, server: Server):
    assert await ask(server.url, cut) == b""
    assert "room1" not in await following(server.url, "cut")


async def open_stream(client: RawClient) -> None:
    await client.send(request("GET", "/receive-message/client/ann/events"))
    while b"event: live" not in client._buffer:
        assert await client._read_more()


async def open_long_poll(client: RawClient) -> None:
    await client.send(request("GET", "/history/room1?from=latest", "Prefer: wait=55"))


async def open_pipelined_long_poll(client: RawClient) -> None:
    await client.send(request("GET", "/history/room1?from=latest", "Prefer: wait=55") + request("GET", "/health"))


async def open_h2c_stream(client: RawClient) -> None:
    await client.send(request("GET", "/receive-message/client/ann/events", H2C))
    while b"event: live" not in client._buffer:
        assert await client._read_more()


async def open_websocket(client: RawClient) -> None:
    assert (await client.handshake("/receive-message/client/ann")).status == 101


@pytest.mark.parametrize("opened", [open_stream, open_h2c_stream, open_long_poll, open_pipelined_long_poll, open_websocket])
@pytest.mark.promise("p-fin-streams")
async def test_a_fin_ends_what_waits_for_news(opened: Callable[[RawClient], Awaitable[None]], server: Server):
    before = server.service.slots_taken
    async with open_raw(server.url) as client:
        await opened(client)
        await until_taken(server, before + 1)
        await client.half_close()
        await until_taken(server, before)
        await client.wait_ended(seconds=HANG_SECONDS)


@pytest.mark.promise("p-fin-streams")
async def test_requests_behind_a_page_that_waits_for_news_are_not_done_where_a_fin_ends_it(server: Server):
    async with open_raw(server.url) as client:
        before = server.service.slots_taken
        waiting = request("GET", "/history/room1?from=latest", "Prefer: wait=55")
        await client.send(request("GET", "/health") + waiting + request("POST", "/subscribing/behind?topic=room1") + waiting)
        await until_taken(server, before + 1)
        await client.half_close()
        answer = await client.wait_ended(seconds=HANG_SECONDS)
    assert answer.count(b"HTTP/1.1 ") == 1, "that of the request before it"
    assert "room1" not in await following(server.url, "behind")


@pytest.mark.parametrize("target", ["/receive-message/client/ann/events", "/history/room1?from=latest"])
async def test_a_fin_that_comes_with_the_request_ends_what_would_wait(target: str, server: Server):
    before = server.service.slots_taken
    answer = await ask(server.url, request("GET", target, "Prefer: wait=55"))
    await until_taken(server, before)
    assert b'"messages"' not in answer


async def test_a_page_that_has_something_does_not_wait_and_is_answered_behind_a_fin(server: Server):
    answer = await ask(server.url, request("GET", "/history/room1", "Prefer: wait=55"))
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert [one["text"] for one in body["messages"]] == ["m0"]


async def test_more_than_64_kib_behind_a_stream_end_it(server: Server):
    before = server.service.slots_taken
    async with open_raw(server.url) as client:
        await open_stream(client)
        try:
            with trio.fail_after(HANG_SECONDS):
                while True:
                    await client.send(request("GET", "/health") * 1000)
        except trio.BrokenResourceError:
            pass
    await until_taken(server, before)
