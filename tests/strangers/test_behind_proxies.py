"""The promises about long heads, cursors and handshakes hold behind real proxies, configured as documented."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode

import pytest

from kafka_chat.chat.resume_cursor import MessageIds
from kafka_chat.delivery.session.event_session import ID_BYTES
from tests.support.brokers import EmbeddedBroker
from tests.support.calls import running
from tests.support.chats import Chats, message
from tests.support.clients import open_chat
from tests.support.events_client import EventsClient, EventsParser, open_events
from tests.support.http_client import http
from tests.support.proxies import OpenProxy, open_haproxy, open_nginx
from tests.support.v1_client import open_v1

BOTH = pytest.mark.parametrize("open_proxy", [open_nginx, open_haproxy])
FILTERS = [("tag", f"a label of some length, {number}") for number in range(100)]


async def live(client: EventsClient) -> None:
    while (await client.next()).name != "live":
        pass


@BOTH
@pytest.mark.promise("p-behind-nginx")
async def test_a_page_with_a_hundred_filters_comes_through(embedded: EmbeddedBroker, chats: Chats, open_proxy: OpenProxy):
    embedded.create_topic(chats.topic("room1"))
    async with running(chats.settings_for(embedded), check_leaks=False) as server, open_proxy(server.port) as proxy:
        for count in range(0, 101, 10):  # some of them just below what is left out
            answer = await http(proxy, "GET", f"/history/room1?{urlencode(FILTERS[:count])}")
            assert answer.status == 200, (count, answer)
        assert answer.json()["next"]  # type: ignore[index]


@BOTH
async def test_the_longest_id_that_an_event_may_have_comes_back_through(embedded: EmbeddedBroker, chats: Chats, open_proxy: OpenProxy):
    topic = chats.topic("global")
    embedded.create_topic(topic)
    async with running(chats.settings_for(embedded), check_leaks=False) as server, open_proxy(server.port) as proxy:
        async with open_events(proxy, "ann") as client:
            await live(client)
            embedded.produce(topic, message("before"), partition=0)
            last_id = (await client.message()).last_id
        other = MessageIds(chats.topic("other"), "Yx0JtmhhTrCl0m2oAaYX1A", 0).of(0).decode()
        last_id = ".".join([last_id, *[other] * ((ID_BYTES - len(last_id)) // (len(other) + 1))])
        assert ID_BYTES - 60 < len(last_id) <= ID_BYTES
        embedded.produce(topic, message("after"), partition=0)
        browser = {"last-event-id": last_id, "user-agent": "M" * 200, "cookie": "c" * 2000, "referer": f"http://{'r' * 500}/"}
        async with open_events(proxy, "ann", headers=browser) as client:
            assert client.status == 200
            assert await client.texts(1) == ["after"]


@BOTH
async def test_an_address_as_long_as_the_service_takes_comes_through(embedded: EmbeddedBroker, chats: Chats, open_proxy: OpenProxy):
    topic = chats.topic("global")
    embedded.create_topic(topic)
    named = [("chat", f"{number}-{'x' * 145}") for number in range(99)] + [("sender", f"{number}-{'y' * 145}") for number in range(99)]
    query = urlencode([("chat", "global"), ("sender", "alice"), *named])
    assert 30_000 < len(query) < 32_000
    settings = chats.settings_for(embedded, limits__absent_chats=1000)
    async with (
        running(settings, check_leaks=False) as server,
        open_proxy(server.port) as proxy,
        open_events(proxy, "ann", query) as client,
        open_v1(proxy, "ann", *parse_qsl(query)) as v1,
    ):
        assert client.status == 200
        await live(client)
        await v1.control("live")
        embedded.produce(topic, message("hello"), partition=0)
        assert await client.texts(1) == ["hello"]
        assert await v1.texts(1) == ["hello"]


@BOTH
async def test_a_cursor_in_a_body_comes_through_and_its_stream_is_not_collected(
    embedded: EmbeddedBroker, chats: Chats, open_proxy: OpenProxy
):
    topic = chats.topic("global")
    embedded.create_topic(topic)
    async with running(chats.settings_for(embedded), check_leaks=False) as server, open_proxy(server.port) as proxy:
        async with open_events(proxy, "ann") as client:
            await live(client)
        async with open_events(proxy, "ann", body={"cursor": ".".join([client.last_id] * 500)}) as client:
            await live(client)
            for number in range(3):  # each comes by itself, before there is more
                embedded.produce(topic, message(str(number)), partition=0)
                assert await client.texts(1) == [str(number)]


@pytest.mark.parametrize("spoken", ["1.0", "1.1"])
@pytest.mark.promise("p-behind-nginx")
async def test_streams_and_websockets_come_through_whichever_version_nginx_speaks_to_us(
    embedded: EmbeddedBroker, chats: Chats, spoken: str
):
    """Unless told otherwise nginx speaks HTTP/1.0 to us, which has no upgrade."""
    topic = chats.topic("global")
    embedded.create_topic(topic)
    old = f"location /old/ {{ proxy_pass http://kafka_chat/; proxy_http_version {spoken}; proxy_set_header Host $host; }}"
    async with (
        running(chats.settings_for(embedded), check_leaks=False) as server,
        open_nginx(server.port, prefix=old) as proxy,
        open_events(proxy, "ann", path="/old") as client,
        open_chat(proxy, "ann") as socket,
        open_v1(proxy, "ann") as v1,
    ):
        await live(client)
        await v1.control("live")
        embedded.produce(topic, message("hello"), partition=0)
        assert await client.texts(1) == ["hello"]
        assert await socket.texts(1) == ["hello"]
        assert await v1.texts(1) == ["hello"]


@BOTH
@pytest.mark.promise("p-proxy-unavailable")
async def test_while_no_instance_runs_only_who_names_event_streams_is_answered_by_one(open_proxy: OpenProxy):
    async with open_proxy(1) as proxy:
        target = f"/receive-message/client/{quote('zoë')}/events"
        told = set()
        for _ in range(40):
            answer = await http(proxy, "GET", target, headers={"accept": "text/event-stream"})
            assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
            assert answer.headers["access-control-allow-origin"] == "*"
            parser = EventsParser()
            (event,) = parser.feed(answer.body)
            assert (event.name, event.said["field"], answer.body.count(b"\n\n")) == ("unavailable", None, 1)
            told.add(parser.retry_ms)
        assert len(told) > 2, "all come again in the same instant"
        assert min(told) >= 3000
        assert max(told) <= 6000
        posted = await http(proxy, "POST", target, json_body={"cursor": ""}, headers={"accept": "text/event-stream"})
        assert b"event: unavailable" in posted.body
        assert (await http(proxy, "GET", target, headers={"accept": "*/*"})).status in (502, 503)
        assert (await http(proxy, "GET", "/health", headers={"accept": "text/event-stream"})).status in (502, 503)


@pytest.mark.promise("p-behind-haproxy")
async def test_streams_and_websockets_come_through_haproxy(embedded: EmbeddedBroker, chats: Chats):
    topic = chats.topic("global")
    embedded.create_topic(topic)
    async with (
        running(chats.settings_for(embedded), check_leaks=False) as server,
        open_haproxy(server.port) as proxy,
        open_events(proxy, "ann") as client,
        open_chat(proxy, "ann") as socket,
    ):
        await live(client)
        embedded.produce(topic, message("hello"), partition=0)
        assert await client.texts(1) == ["hello"]
        assert await socket.texts(1) == ["hello"]
