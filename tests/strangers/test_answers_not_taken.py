"""An answer that its client does not take is kept within limits of size and time, and within that client's slot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio

from kafka_chat.service import ANSWERS_BYTES
from kafka_chat.settings.model import Limits
from kafka_chat.web.streams.event_stream import ChatHTTPConnection
from tests.edges.small_app import serving_small
from tests.support.brokers import EmbeddedBroker
from tests.support.calls import running, until
from tests.support.chats import Chats, message
from tests.support.clients import http
from tests.support.raw_client import open_raw
from tests.support.serving import Server

HANG_SECONDS = 30.0
PAGE_BYTES = 1 << 20  # at which a page ends
MEMORY_BYTES = 2 * PAGE_BYTES
PAGES = ANSWERS_BYTES // PAGE_BYTES  # that are owed, however little memory there is
ASK = b"GET /history/room1?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def server(embedded: EmbeddedBroker, chats: Chats) -> AsyncIterator[Server]:
    """The service, with a page of 1 MiB to ask for and little memory, and a canary that listens all the time."""
    embedded.create_topic(chats.topic("room1"))
    values = [message("x" * 9_000) for _ in range(130)]
    await trio.to_thread.run_sync(partial(embedded.produce_many, chats.topic("room1"), values, partition=0))
    async with (
        running(chats.settings_for(embedded, memory__bytes=MEMORY_BYTES)) as server,
        open_raw(server.url, "/receive-message/client/canary") as canary,
    ):
        yield server
        await canary.ping()


@pytest.mark.promise("p-page-503")
async def test_pages_that_nobody_takes_keep_their_places_and_fill_no_more_than_the_memory(server: Server):
    service = server.service
    memory = service._memory
    statuses: list[bytes] = []
    async with AsyncExitStack() as stack:
        for _ in range(PAGES + 4):
            client = await stack.enter_async_context(open_raw(server.url, receive_buffer=4096))
            await client.send(ASK)
            assert await client._read_more()
            statuses.append(bytes(client._buffer[9:12]))
        assert statuses == [b"200"] * PAGES + [b"503"] * 4
        # The canary's place, and those of the pages that are not written yet.
        await until(lambda: service.slots_taken == 1 + PAGES, seconds=HANG_SECONDS)
        assert ANSWERS_BYTES <= memory.owed_bytes < ANSWERS_BYTES + 2 * PAGE_BYTES
        refused = await http(server.url, "GET", "/history/room1?limit=1000")
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert (await http(server.url, "GET", "/health")).status == 200
    await until(lambda: service.slots_taken == 1 and memory.owed_bytes == 0, seconds=HANG_SECONDS)
    assert (await http(server.url, "GET", "/history/room1?limit=1000")).status == 200


@pytest.mark.promise("p-answer-taken")
async def test_an_answer_that_is_taken_by_drips_is_cut_off_by_its_size():
    size = 200_000  # 3 s at 64 KiB/s
    async with serving_small(limits=Limits(write_seconds=0.5)) as served:
        served.app.asgi_http_class = ChatHTTPConnection

        @served.app.get("/page")
        async def page() -> bytes:
            return b"x" * size

        async with open_raw(served.url, receive_buffer=4096) as client:
            await client.send(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await client._read_more()
            assert served.service.owed == size
            taken = len(client._buffer)
            with trio.fail_after(HANG_SECONDS):
                try:
                    while piece := await client._stream.receive_some(1024):  # some 20 KB/s: there is progress all the time
                        taken += len(piece)
                        await trio.sleep(0.05)
                except trio.BrokenResourceError:
                    pass
            assert taken < size
            assert served.service.owed == 0
            assert served.service.telemetry.aborted == ["write_seconds"]
        async with open_raw(served.url) as other:
            await other.send(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
            assert len((await other.read_response()).body) == size
