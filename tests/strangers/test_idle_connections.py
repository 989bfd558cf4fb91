"""A connection may be idle between two requests, but not inside one; when the limit is reached, the longest idle one is closed."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from kafka_chat.process.open_files import OWN_FILES
from kafka_chat.settings.model import Limits
from kafka_chat.web.server.connection import ChatTCPServer
from kafka_chat.web.server.time_limits import REQUEST_SECONDS
from tests.edges.small_app import PATH, Served, serving_small
from tests.support.calls import until
from tests.support.raw_client import RawClient, open_raw

REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
OFTEN = {"ping_seconds": 0.4, "pong_seconds": 0.4}  # connections are looked at each 0.1 s


async def ask(client: RawClient) -> int:
    await client.send(REQUEST)
    return (await client.read_response()).status


async def until_connections(served: Served, count: int) -> None:
    await until(lambda: served.app.policy.connections.count == count)


async def until_resting(served: Served, connection: ChatTCPServer) -> None:
    """Wait until the server, too, knows that its answer is complete."""
    await until(lambda: served.app.policy.idle.rests(connection))


async def until_begun(served: Served, connection: ChatTCPServer) -> None:
    """Wait until the first byte of its next request has come."""
    await until(lambda: not served.app.policy.idle.rests(connection))


def connection_of(served: Served, client: RawClient) -> ChatTCPServer:
    """Return the server's side of a client's connection."""
    port = client._stream.socket.getsockname()[1]
    watched = [connection for turn in served.app.policy.keepalive._turns for connection in turn]
    (found,) = [one for one in watched if isinstance(one, ChatTCPServer) and one.peer.endswith(f":{port}")]
    return found


def ends_between(connection: ChatTCPServer, early: float, late: float) -> bool:
    """Whether a look after `early` seconds from now would let it be, and one after `late` ones ends it."""
    now = trio.current_time()
    connection.check_alive(now + early)
    if connection.output.ending:
        return False
    connection.check_alive(now + late)
    return connection.output.ending


@pytest.mark.promise("p-idle", "p-rests")
async def test_a_connection_that_rests_between_two_requests_is_ended_after_a_setting():
    async with serving_small(limits=Limits(idle_seconds=0.5, **OFTEN)) as served, open_raw(served.url) as client:
        assert await ask(client) == 200
        await trio.sleep(0.2)
        assert await ask(client) == 200
        begun = trio.current_time()
        assert await client.wait_ended() == b""
        assert trio.current_time() - begun > 0.45
        assert served.service.telemetry.aborted == []


@pytest.mark.promise("p-idle")
async def test_by_default_it_may_rest_for_longer_than_a_proxy_does():
    limits = Limits()
    assert limits.idle_seconds == 75  # nginx keeps a connection to an upstream for 60 s
    async with serving_small(limits=limits) as served, open_raw(served.url) as client:
        assert await ask(client) == 200
        await until_resting(served, connection := connection_of(served, client))
        assert ends_between(connection, 74, 76)


@pytest.mark.promise("p-rests")
async def test_a_first_request_has_ten_seconds():
    async with serving_small() as served, open_raw(served.url) as other, open_raw(served.url) as client:
        assert await ask(other) == 200
        await until_connections(served, 2)
        assert REQUEST_SECONDS == 10
        assert ends_between(connection_of(served, client), 9, 11)
        await client.wait_ended()


@pytest.mark.promise("p-rests")
async def test_a_head_that_has_begun_after_a_rest_has_ten_seconds_however_it_drips():
    async with serving_small() as served, open_raw(served.url) as client:
        assert await ask(client) == 200
        await until_resting(served, connection := connection_of(served, client))
        for byte in REQUEST[:10]:
            await client.send(bytes([byte]))
            await until_begun(served, connection)
            await trio.sleep(0.02)
        assert ends_between(connection, 9.5, 10.5)
        await client.wait_ended()


@pytest.mark.promise("p-idle-gives-way", "p-longest-rest")
async def test_where_no_place_is_left_the_one_that_has_rested_for_longest_gives_way():
    async with serving_small(limits=Limits(connections=4)) as served, AsyncExitStack() as stack:
        canary = await stack.enter_async_context(open_raw(served.url, PATH))
        begun = await stack.enter_async_context(open_raw(served.url))
        first, second = [await stack.enter_async_context(open_raw(served.url)) for _ in range(2)]
        assert await ask(begun) == 200
        for client in (first, second, first):  # so that the second one has rested for longest
            assert await ask(client) == 200
        await until_connections(served, 4)
        for client in (begun, first, second):
            await until_resting(served, connection_of(served, client))
        await begun.send(REQUEST[:20])
        await until_begun(served, connection_of(served, begun))
        newcomer = await stack.enter_async_context(open_raw(served.url))
        assert await ask(newcomer) == 200
        assert await second.wait_ended() == b""
        assert served.app.policy.connections.count == 4
        another = await stack.enter_async_context(open_raw(served.url, PATH))
        assert await first.wait_ended() == b""
        assert served.service.telemetry.aborted == ["idle", "idle"]
        await begun.send(REQUEST[20:])
        assert (await begun.read_response()).status == 200
        for websocket in (canary, another):
            await websocket.ping()


async def test_far_more_newcomers_than_places_end_rests_and_nobody_who_is_served():
    async with serving_small(limits=Limits(connections=40)) as served, open_raw(served.url, PATH) as canary:
        async with AsyncExitStack() as stack:
            for _ in range(200):
                assert await ask(await stack.enter_async_context(open_raw(served.url))) == 200
            await until_connections(served, 40)
            await canary.ping()
        await until_connections(served, 1)
        assert served.service.telemetry.failed == []
    assert OWN_FILES > 40  # those that go are closed in the same step, so they need none of these


async def test_a_shutdown_ends_rests_at_once_and_lets_one_that_has_just_come_say_what_for():
    async with serving_small(drain_seconds=5) as served, open_raw(served.url) as resting, open_raw(served.url) as new:
        assert await ask(resting) == 200
        await until_connections(served, 2)
        served.down.set()
        await resting.wait_ended()
        await new.send(REQUEST)
        assert (await new.read_response()).status == 200
        await new.wait_ended()
