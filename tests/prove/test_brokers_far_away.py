"""Brokers up to half a second away: everything works, as late as that makes it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from kafka_chat.cli.check import check
from tests.prove.scale import FULL
from tests.support.calls import running, subscribe
from tests.support.chats import message
from tests.support.clients import http, open_chat, receive_path
from tests.support.many_listeners import ManyListeners, many_listeners, secured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kafka_chat.settings.model import Settings
    from tests.support.chats import Chats
    from tests.support.serving import Server

# With TLS and a password a connection takes eight round trips before the first question.
WAYS = [("far", 0.5), ("far_secure", 0.5)] if FULL else [("far", 0.4)]
PIECE_BYTES = 1 << 16
TARGETS = ("room", "room?direction=backward", "room?rewind=2", "global?from=-1h", "global?from=-1h&until=-0s")
pytestmark = pytest.mark.deadline(180)


@pytest.fixture(scope="module")
def broker() -> Iterator[ManyListeners]:
    with many_listeners() as broker:
        yield broker


@pytest.mark.parametrize(("listener", "round_trip_seconds"), WAYS)
@pytest.mark.promise("p-brokers-far")
async def test_all_works_through_a_delay(broker: ManyListeners, chats: Chats, listener: str, round_trip_seconds: float) -> None:
    for chat in ("global", "room"):
        broker.cluster.create_topic(chats.topic(chat), partitions=2)
        broker.cluster.produce_many(chats.topic(chat), [message(str(number)) for number in range(5)], partition=0)
    if not FULL:  # making it takes two seconds
        broker.cluster.create_topic(chats.subscriptions_topic, cleanup_policy="compact")
    properties = secured() if listener == "far_secure" else {}
    settings = broker.settings(chats.settings_for(broker.cluster, sending__enabled=True), listener, **properties)
    there = broker.listeners[listener]
    async with open_far(there.advertised[1], to=there.port, round_trip_seconds=round_trip_seconds), trio.open_nursery() as nursery:
        nursery.start_soon(find_nothing_wrong, settings)
        async with running(settings, check_leaks=False) as server, trio.open_nursery() as asking:
            for target in TARGETS:
                asking.start_soon(have_page, server, target)
            asking.start_soon(receive_since_an_hour_ago, server, "bob", [*"01234"])
            asking.start_soon(subscribe_send_and_receive, server)


async def find_nothing_wrong(settings: Settings) -> None:
    assert [finding.sentence for finding in await check(settings) if not finding.ok] == []


async def have_page(server: Server, target: str) -> None:
    answer = await http(server.url, "GET", f"/history/{target}")
    assert answer.status == 200, (target, answer)
    assert answer.json()["messages"]  # type: ignore[index]


async def receive_since_an_hour_ago(server: Server, username: str, texts: list[str]) -> None:
    async with open_chat(server.url, username, path=f"{receive_path(username)}?from=-1h") as client:
        assert sorted(delivery.text for delivery in await client.take(len(texts))) == sorted(texts)


async def subscribe_send_and_receive(server: Server) -> None:
    assert await subscribe(server.url, "ann", "room") == ["global", "room"]
    sent = await http(server.url, "POST", "/send-message/chat/room", json_body={"sender": "ann", "text": "new"})
    assert sent.status == 200, sent
    await receive_since_an_hour_ago(server, "ann", [*"0123401234", "new"])


@asynccontextmanager
async def open_far(port: int, *, to: int, round_trip_seconds: float) -> AsyncIterator[None]:
    """Listen on a port of loopback while the block runs, and hand connections on to another one.

    Args:
        port: where to listen.
        to: where they go.
        round_trip_seconds: how long bytes take there and back; a connection takes so long to be made.
    """

    async def hand_on(client: trio.SocketStream) -> None:
        await trio.sleep(round_trip_seconds)
        async with client, await trio.open_tcp_stream("127.0.0.1", to) as server, trio.open_nursery() as nursery:
            nursery.start_soon(_pass, client, server, round_trip_seconds / 2)
            nursery.start_soon(_pass, server, client, round_trip_seconds / 2)

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, hand_on, port, host="127.0.0.1"))
        yield
        nursery.cancel_scope.cancel()


async def _pass(source: trio.SocketStream, target: trio.SocketStream, seconds: float) -> None:
    """Forward bytes, each piece `seconds` after it came, however many are on their way."""
    put, take = trio.open_memory_channel[tuple[float, bytes]](1 << 20)

    async def deliver() -> None:
        try:
            async for due, data in take:
                await trio.sleep_until(due)
                await target.send_all(data)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await source.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        async with put:
            try:
                while data := await source.receive_some(PIECE_BYTES):
                    put.send_nowait((trio.current_time() + seconds, data))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await target.aclose()
