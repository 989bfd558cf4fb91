"""An event stream works for clients that are stricter or laxer than a browser: no empty message, and no id that is too long."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from httpx_sse._decoders import SSEDecoder, SSELineDecoder
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.resume_cursor import parse
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.event_session import ID_BYTES, RETRY_MS
from kafka_chat.delivery.session.live_socket import Close
from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.web.streams.event_sink import COMMENT
from tests.support.events_client import Event, EventsParser
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core

ROOT = Path(__file__).parents[2]
GLOBAL = "kafka.chat.global"
RESTART = Close(code=1012, reason="the service restarts")


def events(**options: Any) -> SessionOptions:
    return SessionOptions(format=Format.EVENTS, **options)


def said(client: FakeClient) -> list[Event]:
    return EventsParser().feed(client.got)


def texts(told: list[Event]) -> list[str]:
    return [event.said["text"] for event in told if event.name == "message"]


async def subscribe(core: Core, chat: str, offset: int) -> None:
    topic = core.kafka.topics.get(f"kafka.chat.{chat}")
    starts = {} if topic is None else {number: partition.end for number, partition in topic.partitions.items()}
    topic_id = None if topic is None else topic.topic_id
    change = SubscriptionChange(username="ann", chat=chat, subscribed=True, topic_id=topic_id or "", starts=starts, offset=offset)
    core.subscribed["ann", chat] = change
    await core.audience.user_changed(change)
    await wait_all_tasks_blocked()


async def cursor_now(core: Core) -> str:
    client = FakeClient()
    async with core.connected(client, options=events()):
        await wait_all_tasks_blocked()
    cursor: str = said(client)[0].meta["cursor"]
    return cursor


async def all_kinds(core: Core) -> FakeClient:
    """A client that has been told of everything there is to tell."""
    core.kafka.create(GLOBAL, partitions=2)
    core.kafka.create("kafka.chat.room")
    before = FakeClient()
    async with core.connected(before, options=events()):
        await wait_all_tasks_blocked()
    core.kafka.produce(GLOBAL, *[value(f"m{n}\n\nid: 9\r\rdata:\n\n") for n in range(4)])
    core.kafka.trim(GLOBAL, 2)
    client = FakeClient()
    async with core.connected(client, options=events(cursor=parse(said(before)[-1].last_id))) as session:
        await wait_all_tasks_blocked()
        await subscribe(core, "room", 1)
        core.kafka.produce("kafka.chat.room", value("in the room"))
        await wait_all_tasks_blocked()
        await core.audience.user_changed(SubscriptionChange(username="ann", chat="room", subscribed=False, starts={}))
        await wait_all_tasks_blocked()
        session.end(RESTART)
        await wait_all_tasks_blocked()
    return client


@pytest.mark.promise("p-events-begin")
async def test_every_block_has_data_and_no_client_gets_an_empty_message(autojump_clock):
    """By httpx-sse's own decoder, which hands on what has no data once there was an id; a keep-alive stands anywhere between blocks."""
    async with open_core() as core:
        client = await all_kinds(core)
        blocks = [block + b"\n\n" for block in client.got.split(b"\n\n")[:-1]]
        assert [event.name for event in said(client) if event.name != "message"] == [
            *["hello", "gap", "live", "subscribed", "unsubscribed", "reconnect"]
        ]
        assert all(b"\ndata: " in b"\n" + block for block in blocks), blocks
        for place in range(len(blocks) + 1):
            whole = b"".join([*blocks[:place], COMMENT, COMMENT, *blocks[place:]])
            decoder, got = SSEDecoder(), []
            for line in SSELineDecoder().decode(whole.decode()):
                event = decoder.decode(line)
                if event is not None:
                    got.append(event)
            assert [(event.event, event.data, event.id) for event in got] == [
                (event.name, event.data, event.last_id) for event in said(client)
            ]


@pytest.mark.promise("p-events-begin")
async def test_how_long_to_stay_away_stands_in_the_block_of_hello_and_differs(autojump_clock):
    told = set()
    async with open_core() as core:
        for _ in range(20):
            client = FakeClient()
            async with core.connected(client, options=events()):
                await wait_all_tasks_blocked()
            block = client.got.split(b"\n\n")[0].decode().split("\n")
            assert [line.partition(":")[0] for line in block if not line.startswith("id")] == ["retry", "event", "data"]
            told.add(int(block[0].removeprefix("retry: ")))
    assert all(RETRY_MS[0] <= retry_ms <= RETRY_MS[1] for retry_ms in told)
    assert len(told) > 1


@pytest.mark.parametrize("absent", [True, False])
@pytest.mark.promise("p-long-ids")
async def test_an_id_that_would_not_fit_in_a_header_is_empty_and_hello_says_so(autojump_clock, absent):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        rooms = [f"room{number}" for number in range(1000)]
        for room in () if absent else rooms:
            core.kafka.create(f"kafka.chat.{room}")
        core.chats["ann"] = {"global", *rooms}
        client = FakeClient()
        async with core.connected(client, options=events()) as session:
            await wait_all_tasks_blocked()
            core.kafka.produce(GLOBAL, value("m0"), value("m1"))
            await wait_all_tasks_blocked()
            session.end(RESTART)
            await wait_all_tasks_blocked()
        told = said(client)
        assert [event.name for event in told] == ["hello", "live", "message", "message", "reconnect"]
        assert {event.last_id for event in told} == {""}
        assert client.got.count(b"id:\n") == len(told)
        assert told[0].meta["resumable"] is False
        assert len(told[0].meta["cursor"]) > ID_BYTES
        # What the way by POST needs is there all the same.
        begin = parse(f"{told[1].meta['cursor']}.{told[2].meta['id']}")
        back = FakeClient()
        async with core.connected(back, options=events(cursor=begin)):
            await wait_all_tasks_blocked()
        assert texts(said(back)) == ["m1"]


@pytest.mark.parametrize("partitions", [1, 40])
@pytest.mark.promise("p-long-ids")
async def test_a_stream_whose_cursor_grows_too_long_says_hello_again_before_its_ids_end(autojump_clock, partitions):
    """No id is ever longer than promised, whichever event is the first whose id would be; and nothing is lost or doubled there."""
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client, count = FakeClient(), 0
        sizes = []
        for number in range(2):
            sizes.append(len(await cursor_now(core)))
            core.kafka.create(f"kafka.chat.before{number}", partitions=partitions)
            core.chats.setdefault("ann", {"global"}).add(f"before{number}")
        each = sizes[1] - sizes[0]
        before = (ID_BYTES - sizes[0]) // each - 6
        for number in range(2, before):
            core.kafka.create(f"kafka.chat.before{number}", partitions=partitions)
            core.chats["ann"].add(f"before{number}")
        async with core.connected(client, options=events()):
            await wait_all_tasks_blocked()
            for number in range(12):
                core.kafka.create(f"kafka.chat.room{number}", partitions=partitions)
                await subscribe(core, f"room{number}", number)
                for topic in (GLOBAL, f"kafka.chat.room{number}"):
                    core.kafka.produce(topic, value(f"m{count}"), hole=number * 1000)  # so that ids differ in length
                    await wait_all_tasks_blocked()
                    count += 1
        told = said(client)
        assert texts(told) == [f"m{number}" for number in range(count)]
        hellos = [index for index, event in enumerate(told) if event.name == "hello"]
        assert [told[index].meta["resumable"] for index in hellos] == [True, False]
        grown = hellos[1]
        assert told[grown].meta["cursor"] is None, "its place lies behind the message that comes next"
        assert all(0 < len(event.last_id) <= ID_BYTES for event in told[:grown])
        assert {event.last_id for event in told[grown:]} == {""}
        assert len(told[grown - 1].last_id) > ID_BYTES - 100 - each, "it was given up early"
        # A client that comes back with the last id that it got has exactly what came after it.
        last = max(index for index, event in enumerate(told[:grown]) if event.name == "message")
        back = FakeClient()
        async with core.connected(back, options=events(cursor=parse(told[last].last_id))):
            await wait_all_tasks_blocked()
        assert sorted(texts(said(back))) == sorted(texts(told[last + 1 :]))


@pytest.mark.promise("p-how-many-chats")
async def test_from_how_many_chats_on_a_stream_cannot_be_resumed_is_as_the_protocol_says(autojump_clock):
    said_so = re.findall(r"(\d+) chats with (\d+) partitions?", (ROOT / "docs" / "protocol.md").read_text())
    assert len(said_so) == 3
    for chats, partitions in ((int(chats), int(partitions)) for chats, partitions in said_so):
        for share, resumable in ((0.8, True), (1.2, False)):
            async with open_core() as core:
                core.chats["ann"] = names = {f"room{number}" for number in range(int(chats * share))}
                for name in names:
                    core.kafka.create(f"kafka.chat.{name}", partitions=partitions)
                    for partition in range(partitions):
                        core.kafka.produce(f"kafka.chat.{name}", value("m"), partition=partition, hole=1_900_000)
                client = FakeClient()
                async with core.connected(client, options=events()):
                    await wait_all_tasks_blocked()
                hello = said(client)[0].meta
                assert hello["resumable"] is resumable, (chats, partitions, share, len(hello["cursor"]))


async def test_hello_says_that_a_short_stream_is_resumable_and_says_nothing_of_it_to_websockets(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client, socket = FakeClient(), FakeClient()
        async with core.connected(client, options=events()), core.connected(socket, options=SessionOptions(format=Format.V1)):
            await wait_all_tasks_blocked()
        assert said(client)[0].meta["resumable"] is True
        assert "resumable" not in socket.deliveries[0]["meta"]  # type: ignore[operator]
