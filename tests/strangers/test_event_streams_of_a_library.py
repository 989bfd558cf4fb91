"""httpx-sse, with its defaults, gets every message and no empty one, resumes exactly, and is told when to reconnect."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx  # noqa: ASYNC127 - httpx-sse stands on it
import pytest
import trio
from httpx_sse import EventSource, ServerSentEvent, connect_sse

from tests.support.brokers import EmbeddedBroker
from tests.support.calls import metric, running, subscribe
from tests.support.chats import Chats, message
from tests.support.deadlines import HANG_SECONDS

REFUSED = 'requests_refused_total{status="503"}'
PATH = "/receive-message/client/ann/events"


class Reader:
    """One stream, read as it is asked for, in a thread: the library's own generators are left unfinished under trio."""

    def __init__(self, source: EventSource) -> None:
        self.response = source.response
        self._events = source.iter_sse()

    async def next(self) -> ServerSentEvent:
        event: ServerSentEvent = await trio.to_thread.run_sync(next, self._events)
        assert event.data, f"an empty message: {event}"
        return event

    async def until(self, name: str) -> ServerSentEvent:
        while (event := await self.next()).event != name:
            pass
        return event

    async def texts(self, count: int) -> list[str]:
        """The texts of the next messages."""
        return [json.loads((await self.until("message")).data)["text"] for _ in range(count)]

    async def rest(self) -> list[ServerSentEvent]:
        return await trio.to_thread.run_sync(list, self._events)


@asynccontextmanager
async def connected(url: str, method: str = "GET", **asked: Any) -> AsyncIterator[Reader]:
    with httpx.Client(base_url=url, timeout=HANG_SECONDS, trust_env=False) as client:
        opened = connect_sse(client, method, PATH, **asked)
        source = await trio.to_thread.run_sync(opened.__enter__)
        try:
            yield Reader(source)
        finally:
            opened.__exit__(None, None, None)


async def test_it_gets_what_is_written_and_comes_back_to_what_it_missed(embedded: EmbeddedBroker, chats: Chats):
    topic = chats.topic("global")
    embedded.create_topic(topic, partitions=1)
    async with running(chats.settings_for(embedded), check_leaks=False) as server:
        async with connected(server.url) as reader:
            assert reader.response.encoding == "utf-8"
            assert [(await reader.next()).event for _ in range(2)] == ["hello", "live"]
            embedded.produce(topic, message("grüße\n\n"))
            event = await reader.next()
            assert (event.event, json.loads(event.data)["text"]) == ("message", "grüße\n\n")
        for number in range(3):
            embedded.produce(topic, message(str(number)), partition=0)
        async with connected(server.url, headers={"Last-Event-ID": event.id}) as reader:
            assert await reader.texts(3) == ["0", "1", "2"]


@pytest.mark.promise("p-events-by-post")
async def test_a_stream_with_a_cursor_too_long_for_a_header_is_resumed_exactly_by_post(embedded: EmbeddedBroker, chats: Chats):
    topic = chats.topic("global")
    embedded.create_topic(topic, partitions=3)
    rooms = [f"room{number}" for number in range(195)]  # of four partitions each
    for room in rooms:
        embedded.create_topic(chats.topic(room))
    async with running(chats.settings_for(embedded), check_leaks=False) as server:
        for begin in (0, 100):
            await subscribe(server.url, "ann", *rooms[begin : begin + 100])
        cursor, ids, got = "", {}, []
        for turn in range(3):
            async with connected(server.url, "POST", json={"cursor": cursor}) as reader:
                hello = json.loads((await reader.until("hello")).data)["meta"]
                assert hello["resumable"] is False
                assert len(hello["cursor"]) > 4096
                assert hello["resume"] == ("none" if turn == 0 else "exact")
                cursor, ids = hello["cursor"], {}
                for number in range(turn * 10, turn * 10 + 10):
                    embedded.produce(topic, message(str(number)), partition=number % 3)
                for _ in range(4 if turn < 2 else 22):  # and is cut off before the others
                    event = await reader.until("message")
                    said = json.loads(event.data)
                    assert event.id == ""
                    got.append(int(said["text"]))
                    ids[said["meta"]["partition"]] = said["meta"]["id"]
                cursor = ".".join([cursor, *ids.values()])
        assert sorted(got) == list(range(30))


@asynccontextmanager
async def let_in(url: str) -> AsyncIterator[Reader]:
    """A stream that has a place, which the server may not know yet to be free: it notices the end of a connection later."""
    async with AsyncExitStack() as stack:
        told = "unavailable"
        with trio.fail_after(HANG_SECONDS):
            while told == "unavailable":
                await stack.aclose()
                reader = await stack.enter_async_context(connected(url))
                told = (await reader.next()).event
        assert told == "hello"
        yield reader


@pytest.mark.promise("p-unavailable")
async def test_where_no_place_is_left_it_is_told_to_come_again_and_gets_in_once_there_is_one(embedded: EmbeddedBroker, chats: Chats):
    embedded.create_topic(chats.topic("global"))
    async with running(chats.settings_for(embedded, limits__connections=1), check_leaks=False) as server:
        async with let_in(server.url):
            before = await metric(server.url, REFUSED)
            for method, more in (("GET", {}), ("POST", {"json": {}})):
                async with connected(server.url, method, **more) as refused:
                    assert refused.response.status_code == 200
                    (event,) = await refused.rest()
                assert (event.event, event.id) == ("unavailable", "")
                assert "limits.connections" in json.loads(event.data)["error"]
                assert event.retry is not None
                assert 5_000 <= event.retry <= 30_000
            assert server.service.slots_taken == 1
            assert await metric(server.url, REFUSED) == before + 2
        async with let_in(server.url):
            pass
