"""Incomplete, waiting and remembered input of clients counts for `memory.bytes`, and is refused beyond it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from urllib.parse import urlencode

import pytest
import trio

from kafka_chat.chat.resume_cursor import head_of_cursor, text_of, topic_entry
from kafka_chat.delivery.ports import Disconnect
from kafka_chat.settings.model import Limits
from tests.edges.small_app import PATH, Served, serving_small
from tests.support.brokers import EmbeddedBroker
from tests.support.calls import metric, running, until
from tests.support.chats import Chats
from tests.support.clients import http
from tests.support.deadlines import HANG_SECONDS
from tests.support.raw_client import Opcode, RawClient, client_frame, close_code, handshake_request, open_raw
from tests.support.v1_client import open_v1

POST = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"
HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\nX: "


async def until_owed(served: Served, least: int, most: int | None = None) -> None:
    await until(lambda: least <= served.service.owed <= (least if most is None else most))


@pytest.mark.parametrize(
    ("begun", "least", "rest"),
    [
        (POST + b"x" * 50_000, 150_000, b"x" * 10_000),
        (HEAD + b"x" * 30_000, 30_000, b"\r\n\r\n"),
    ],
    ids=["body", "head"],
)
@pytest.mark.promise("p-said-is-counted")
async def test_a_request_that_is_not_whole_counts_until_it_is_answered(begun: bytes, least: int, rest: bytes):
    async with serving_small() as served:
        for ends in (False, True):
            async with open_raw(served.url) as client:
                await client.send(begun)
                await until_owed(served, least, 2 * least)
                if ends:
                    await client.send(rest)
                    assert (await client.read_response()).status == 200
                    await until_owed(served, 0)
                else:
                    client.reset()
            await until_owed(served, 0)


@pytest.mark.parametrize("begun", [POST + b"x" * 50_000, HEAD + b"x" * 30_000], ids=["body", "head"])
@pytest.mark.promise("p-said-too-much")
async def test_where_clients_have_said_too_much_a_large_request_is_refused_and_a_small_one_is_not(begun: bytes):
    async with serving_small() as served, open_raw(served.url) as large, open_raw(served.url) as small:
        served.service.owes_too_much = True
        await large.send(begun)
        response = await large.read_response()
        assert (response.status, response.headers["retry-after"]) == (503, "5")
        assert b"memory.bytes" in response.body
        await large.wait_ended()
        await small.send(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
        assert (await small.read_response()).status == 200
        await until_owed(served, 0)
        assert served.service.telemetry.failed == []


async def test_requests_behind_one_that_waits_count_and_are_cut_where_there_is_too_much():
    async with serving_small() as served, AsyncExitStack() as stack:
        answer = trio.Event()

        @served.app.get("/slow")
        async def slow():
            await answer.wait()
            return b"slow"

        clients = [await stack.enter_async_context(open_raw(served.url)) for _ in range(2)]
        for client in clients:
            await client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
        await until_owed(served, 13_000, 14_000)
        served.service.owes_too_much = True
        await clients[0].send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await clients[0].wait_ended() == b""
        assert served.service.telemetry.aborted == ["memory"]
        answer.set()
        for _ in range(201):
            assert (await clients[1].read_response()).status == 200
        await until_owed(served, 0)


async def deaf(service, accept, inbox) -> None:
    """A session that takes one message when it is told to."""
    service.has(await accept())
    while True:
        await service.crash.wait()
        said = await inbox.receive()
        if isinstance(said, Disconnect):
            return
        service.said.append(said)


async def fragments(client: RawClient) -> None:
    await client.send(
        client_frame(Opcode.TEXT, "ü".encode() * 10_000, final=False) + client_frame(Opcode.CONTINUATION, b"x" * 500, final=False)
    )


@pytest.mark.promise("p-said-is-counted")
async def test_a_message_that_is_not_whole_counts_and_so_do_those_that_nobody_has_taken():
    async with serving_small(session=deaf) as served:
        async with open_raw(served.url, PATH) as client:
            await fragments(client)
            await until_owed(served, 20_500)
            await client.send(client_frame(Opcode.CONTINUATION, b"x"))
            await until_owed(served, 20_501)
            for _ in range(5):
                await client.send_frame(Opcode.BINARY, b"x" * 60_000)
            await until_owed(served, 20_501 + 5 * 60_000)
        await until_owed(served, 0)


@pytest.mark.promise("p-said-too-much")
async def test_where_clients_have_said_too_much_a_websocket_that_says_more_is_told_to_come_again():
    async with serving_small() as served, open_raw(served.url, PATH) as client, open_raw(served.url, PATH) as canary:
        served.service.owes_too_much = True
        await canary.send_frame(Opcode.TEXT, b"small")
        await fragments(client)
        frames = await client.read_to_end()
        assert close_code(frames[-1])[0] == 1013
        assert "memory.bytes" in close_code(frames[-1])[1]
        await canary.ping()
        assert served.service.said == ["small"]
        assert served.service.telemetry.aborted == ["memory"]


@pytest.mark.parametrize("limits", [Limits()])
async def test_what_is_counted_is_given_back_whatever_ends_a_client(limits: Limits):
    async with serving_small(limits=limits) as served:
        for cut in range(1, 12):
            async with open_raw(served.url) as client:
                said = handshake_request(PATH) if cut % 2 else POST
                await client.send(said)
                if cut % 2:
                    assert (await client.read_response()).status == 101
                    await client.send(client_frame(Opcode.TEXT, b"x" * 3000, final=False)[: cut * 300])
                else:
                    await client.send(b"x" * cut * 3000)
                if cut % 3:
                    client.reset()
                else:
                    await client.half_close()
                    await client.wait_ended()
        await until_owed(served, 0)


@pytest.mark.promise("p-names-are-counted")
async def test_names_of_chats_and_the_cursor_of_chats_that_are_not_there_count_while_they_are_held(embedded: EmbeddedBroker, chats: Chats):
    settings = chats.settings_for(embedded, memory__bytes=65_536)
    names = [f"absent{number:03}" + "x" * 190 for number in range(100)]
    absent = [chats.topic(name) for name in names]
    cursor = text_of(head_of_cursor(None, 0) + b"".join(topic_entry(topic, "id77", [5] * 100) for topic in absent[:50]))
    assert len(cursor) < 20_000
    asked = urlencode([("meta", "1"), *(("chat", name) for name in names[:50]), ("cursor", cursor)])
    async with running(settings) as server, AsyncExitStack() as stack, open_v1(server.url, "canary") as canary:
        await canary.control("live")
        before = await metric(server.url, "owed_bytes")
        assert before < 10_000
        client = await stack.enter_async_context(open_raw(server.url, f"/receive-message/client/ann?{asked}"))
        await client.next_text()
        each = await metric(server.url, "owed_bytes") - before
        assert each > 50 * (3 * 200 + 100 * 8)
        refused = None
        while refused is None:
            late = await stack.enter_async_context(open_raw(server.url))
            response = await late.handshake(f"/receive-message/client/ann?{asked}")
            refused = response if response.status != 101 else None
        assert refused.status == 503
        assert b"memory.bytes" in refused.body
        assert (await http(server.url, "GET", "/health")).status == 200
        async with open_v1(server.url, "bob") as bob:
            await bob.control("live")
        await stack.aclose()
        with trio.fail_after(HANG_SECONDS):
            while await metric(server.url, "owed_bytes") > before:  # noqa: ASYNC110 - it tells nobody
                await trio.sleep(0.05)
