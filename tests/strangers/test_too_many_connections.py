"""Connections of any kind are counted: beyond the limit none is served, and the operator still gets health and metrics."""

from __future__ import annotations

import os
import re
import resource
from contextlib import AsyncExitStack

import pytest
import trio

from kafka_chat.process.open_files import SPARE_CONNECTIONS
from kafka_chat.telemetry.events import NOT_ACCEPTED_SECONDS
from tests.support.brokers import EmbeddedBroker
from tests.support.calls import metric, running
from tests.support.chats import Chats
from tests.support.clients import http
from tests.support.raw_client import RawClient, close_code, open_raw
from tests.support.serving import spawned

HANG_SECONDS = 30.0
PATH = "/receive-message/client/ann"
LIMIT = 3
REFUSED = (("POST", "/subscribing/ann?topic=room1"), ("GET", "/history/room1"), ("GET", "/openapi.json"), ("GET", PATH))


@pytest.mark.promise("p-connections", "p-places-beyond")
async def test_beyond_the_limit_health_is_told_and_all_else_comes_again(embedded: EmbeddedBroker, chats: Chats):
    settings = chats.settings_for(embedded, limits__connections=LIMIT)
    async with running(settings) as server, open_raw(server.url, PATH) as canary, AsyncExitStack() as stack:
        for _ in range(LIMIT - 1):  # they say nothing, and count
            silent = await stack.enter_async_context(open_raw(server.url))
            await silent.send(b"GET /health HTTP/1.1\r\nHost: x\r\nX: ")
        await until_connected(server.url, LIMIT)
        for target in ("/health", "/ready", "/metrics"):
            answer = await http(server.url, "GET", target)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        for method, target in REFUSED:
            answer = await http(server.url, method, target)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
            assert b"limits.connections" in answer.body
        async with open_raw(server.url) as late:
            assert (await late.handshake(PATH)).status == 503
        async with open_raw(server.url) as late:
            assert (await late.handshake(PATH, headers={"Sec-WebSocket-Protocol": "kafka-chat.v1"})).status == 101
            frames = await late.read_to_end()
            assert close_code(frames[-1])[0] == 1013
        await canary.ping()


@pytest.mark.promise("p-places-beyond")
async def test_far_beyond_the_limit_a_connection_is_closed_at_once_and_places_come_back(embedded: EmbeddedBroker, chats: Chats):
    async with running(chats.settings_for(embedded, limits__connections=LIMIT)) as server, open_raw(server.url, PATH) as canary:
        async with AsyncExitStack() as stack:
            for _ in range(LIMIT - 1 + SPARE_CONNECTIONS):
                await stack.enter_async_context(open_raw(server.url))
            async with open_raw(server.url) as late:
                await late.wait_ended(seconds=HANG_SECONDS)
        with trio.fail_after(HANG_SECONDS):
            while (await http(server.url, "GET", "/openapi.json")).status != 200:  # noqa: ASYNC110 - nobody tells of it
                await trio.sleep(0.05)
        assert await metric(server.url, 'connections_aborted_total{reason="connections"}') >= 1
        await canary.ping()


async def failed_accepts(asker: RawClient) -> float:
    """Ask on a connection that is open already."""
    await asker.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    found = re.search(rb'accepts_failed_total\{reason="EMFILE"\} (\S+)', (await asker.read_response()).body)
    return float(found[1]) if found else 0.0


async def until_connected(url: str, count: int) -> None:
    with trio.fail_after(HANG_SECONDS):
        while await metric(url, "connections") < count + 1:  # noqa: ASYNC110 - and the one that asks
            await trio.sleep(0.02)


async def test_without_descriptors_the_log_says_so_once_a_minute_and_the_service_goes_on():
    async with (
        spawned("--embedded") as server,
        open_raw(server.url, PATH) as canary,
        open_raw(server.url) as asker,
        AsyncExitStack() as stack,
    ):
        await failed_accepts(asker)
        soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        files = max(map(int, os.listdir(f"/proc/{server.pid}/fd")))
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (files + 4, hard))
        clients: list[RawClient] = [await stack.enter_async_context(open_raw(server.url)) for _ in range(20)]
        await server.wait_for(r"connection.not_accepted reason=EMFILE")
        with trio.fail_after(HANG_SECONDS):
            while await failed_accepts(asker) < 5:  # noqa: ASYNC110 - it is tried ten times a second
                await trio.sleep(0.1)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
        for client in clients:
            await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for client in clients[-4:]:
            assert (await client.read_response(seconds=HANG_SECONDS)).status == 200
        await canary.ping()
        assert server.stderr.count("connection.not_accepted") == 1
        assert "Traceback" not in server.stderr
    assert NOT_ACCEPTED_SECONDS == 60
