"""Server-sent events bring the same messages as a WebSocket, and a client that reconnects gets exactly what it missed."""

from __future__ import annotations

import json

import pytest
import trio

from kafka_chat.chat.resume_cursor import parse
from tests.support.brokers import Broker, KafkaCluster
from tests.support.calls import metric, running, subscribe, until
from tests.support.chats import Chats, message
from tests.support.clients import open_chat, open_raw, receive_path
from tests.support.deadlines import HANG_SECONDS
from tests.support.events_client import EventsClient, open_events

SMALL_BUFFER = 4096  # bytes that the kernel takes for a client that does not read

NASTY = [
    "two\nlines",
    "\nid: 9\n\n",
    "a\r\nb\rc",
    "\n\ndata: {}\n\nevent: live",
    "\u2028 and \u2029 and \u0085",
    "\x00\x01",
    ": no comment",
    "😀 " * 50,
    "",
]


async def live(client: EventsClient) -> None:
    """Read up to where all that was there has come."""
    while (await client.next()).name != "live":
        pass


@pytest.mark.promise("p-event-controls")
async def test_a_stream_says_hello_is_live_and_brings_messages(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("global")
    broker.create_topic(topic, partitions=2)
    async with running(chats.settings_for(broker)) as server, open_events(server.url, "ann") as client:
        assert client.status == 200
        assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert client.headers["transfer-encoding"] == "chunked"
        hello, alive = await client.take(2)
        assert (hello.name, hello.meta["resume"], hello.meta["chats"], hello.meta["user"]) == ("hello", "none", ["global"], "ann")
        assert alive.name == "live"
        assert hello.last_id == hello.meta["cursor"]
        assert alive.last_id == alive.meta["cursor"]
        assert client.parser.retry_ms in range(1000, 4001)
        broker.produce(topic, message("hello", tag="t"), partition=1)
        event = await client.next()
        assert event.name == "message"
        assert {name: value for name, value in event.said.items() if name != "meta"} == {
            "sender": "alice",
            "text": "hello",
            "tag": "t",
            "chat": "global",
        }
        assert (event.meta["partition"], event.meta["offset"]) == (1, 0)
        assert event.last_id.endswith("." + event.meta["id"])
        entry = parse(event.last_id).entry(topic)
        assert entry is not None
        assert entry.offsets[1] == 1
        assert set(entry.offsets.values()) == {0, 1}


async def test_what_people_write_forges_no_event_no_id_and_no_line(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("global")
    broker.create_topic(topic, partitions=1)
    async with running(chats.settings_for(broker)) as server, open_events(server.url, "ann") as client:
        await live(client)
        for text in NASTY:
            broker.produce(topic, message(text, sender="a\nid: 1", tag="x\n\nevent: end"), partition=0)
        for offset, text in enumerate(NASTY):
            event = await client.next()
            assert event.name == "message"
            assert (event.said["text"], event.said["sender"], event.said["tag"]) == (text, "a\nid: 1", "x\n\nevent: end")
            assert event.meta["offset"] == offset
            assert event.last_id.endswith("." + event.meta["id"])
        assert client.parser.comments == 0


async def test_a_key_with_line_ends_forges_nothing(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("global")
    kafka.create_topic(topic)
    async with running(chats.settings_for(kafka)) as server, open_events(server.url, "ann") as client:
        await live(client)
        kafka.produce(topic, message("m"), key="k\n\nid: 9\n\n")
        event = await client.next()
        assert event.meta["key"] == "k\n\nid: 9\n\n"
        assert event.last_id.endswith("." + event.meta["id"])


@pytest.mark.promise("p-last-event-id")
async def test_who_comes_back_with_its_last_id_gets_exactly_what_it_missed(broker: Broker, chats: Chats) -> None:
    topics = {chat: chats.topic(chat) for chat in ("global", "room1")}
    for topic in topics.values():
        broker.create_topic(topic, partitions=3)
    produced = 0
    got: list[int] = []
    last_id = ""

    def produce(count: int) -> None:
        nonlocal produced
        for _ in range(count):
            broker.produce(topics[("global", "room1")[produced % 2]], message(str(produced)), partition=produced % 3)
            produced += 1

    async with running(chats.settings_for(broker)) as server:
        await subscribe(server.url, "ann", "room1")
        async with open_events(server.url, "ann") as client:
            await live(client)
            last_id = client.last_id
        for turn in range(6):
            produce(7)
            headers = {"last-event-id": last_id}
            # An address with an old cursor in it, as an EventSource has that was opened with one: the header wins.
            async with open_events(server.url, "ann", f"cursor={last_id}" if turn == 0 else "from=earliest", headers=headers) as client:
                assert (await client.next()).meta["resume"] == "exact"
                got += map(int, await client.texts(7))
                produce(5)
                got += map(int, await client.texts(3))  # and is cut off before the last two
                last_id = client.last_id
        async with open_events(server.url, "ann", headers={"last-event-id": last_id}) as client:
            got += map(int, await client.texts(produced - len(got)))
            produce(1)
            got += map(int, await client.texts(1))
    assert sorted(got) == list(range(produced))
    for partition in range(6):
        of_one = [number for number in got if number % 6 == partition]
        assert of_one == sorted(of_one)


@pytest.mark.promise("p-events-end")
async def test_who_comes_back_by_post_with_the_cursor_that_it_made_gets_exactly_what_it_missed(broker: Broker, chats: Chats) -> None:
    """As a client does whose cursor is too long for an id: that of the last control frame, and the last message's id of each partition."""
    topic = chats.topic("global")
    broker.create_topic(topic, partitions=3)
    async with running(chats.settings_for(broker)) as server:
        cursor, got, produced = "", [], 0
        for turn in range(4):
            async with open_events(server.url, "ann", body={"cursor": cursor}) as client:
                hello = await client.next()
                assert hello.meta["resume"] == ("none" if turn == 0 else "exact")
                cursor, ids = hello.meta["cursor"], {}
                for _ in range(7):
                    broker.produce(topic, message(str(produced)), partition=produced % 3)
                    produced += 1
                while len(got) < produced - (5 if turn < 3 else 0):  # and is cut off before the last ones
                    event = await client.next()
                    if event.name == "message":
                        got.append(int(event.said["text"]))
                        ids[event.meta["partition"]] = event.meta["id"]
                    elif event.meta.get("cursor"):
                        cursor, ids = event.meta["cursor"], {}
                cursor = ".".join([cursor, *ids.values()])
    assert sorted(got) == list(range(produced))


@pytest.mark.promise("p-events-end")
async def test_a_stream_with_an_end_says_so_and_ends(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("global")
    kafka.create_topic(topic, partitions=2)
    for number in range(20):
        kafka.produce(topic, message(str(number)), partition=number % 2)
    async with running(chats.settings_for(kafka)) as server:
        await trio.sleep(0.002)  # `until` is a whole millisecond, and what was produced is older
        async with open_events(server.url, "ann", "from=earliest&until=-0s") as client:
            events = await client.read_to_end()
        assert [event.name for event in events] == ["hello", *["message"] * 20, "end"]
        assert sorted(int(event.said["text"]) for event in events if event.name == "message") == list(range(20))
        entry = parse(events[-1].last_id).entry(topic)
        assert entry is not None
        assert dict(entry.offsets) == {0: 10, 1: 10}
        async with open_events(server.url, "ann", headers={"last-event-id": events[-1].last_id}) as client:
            await live(client)
            kafka.produce(topic, message("next"))
            assert await client.texts(1) == ["next"]


@pytest.mark.promise("p-events-end")
async def test_when_the_service_restarts_a_stream_says_when_to_come_back_and_ends(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("global")
    broker.create_topic(topic)
    async with running(chats.settings_for(broker)) as server:
        async with open_events(server.url, "ann") as client:
            await live(client)
            server.shut_down()
            events = await client.read_to_end()
            assert [event.name for event in events] == ["reconnect"]
            assert events[0].meta["after_ms"] in range(3001)
            assert events[0].last_id == events[0].meta["cursor"]
        await server.ended()
    broker.produce(topic, message("meanwhile"))
    async with (
        running(chats.settings_for(broker)) as server,
        open_events(server.url, "ann", headers={"last-event-id": events[0].last_id}) as back,
    ):
        assert await back.texts(1) == ["meanwhile"]


@pytest.mark.promise("p-events")
async def test_streams_and_websockets_of_one_user_get_the_same(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("global")
    broker.create_topic(topic, partitions=1)
    async with (
        running(chats.settings_for(broker)) as server,
        open_events(server.url, "ann") as events,
        open_chat(server.url, "ann") as socket,
    ):
        await live(events)
        for number in range(50):
            broker.produce(topic, message(str(number)), partition=0)
        expected = [str(number) for number in range(50)]
        assert await events.texts(50) == expected
        assert await socket.texts(50) == expected
        assert await metric(server.url, "sockets") == 2


async def test_nothing_is_left_of_a_stream_whose_client_is_gone(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("global")
    broker.create_topic(topic)
    async with running(chats.settings_for(broker)) as server:
        for _ in range(5):
            async with open_events(server.url, "ann", "chat=only") as client:
                await live(client)
                assert await metric(server.url, "sockets") == 1
            await until(lambda: server.service.slots_taken == 0)
        assert await metric(server.url, "sessions") == 0
        assert await metric(server.url, "followed_topics") == 1


async def test_who_does_not_read_is_cut_off_and_nobody_else_notices(broker: Broker, chats: Chats) -> None:
    topic, count = chats.topic("global"), 2000
    broker.create_topic(topic, partitions=1)
    settings = chats.settings_for(broker, limits__write_seconds=1.0, memory__bytes=1 << 20)
    async with (
        running(settings) as server,
        open_events(server.url, "stuck", receive_buffer=SMALL_BUFFER) as stuck,
        open_events(server.url, "quick") as quick,
        open_chat(server.url, "ann") as socket,
    ):
        await live(quick)
        padding = "x" * 1000
        values = [message(f"{number} {padding}") for number in range(count)]
        await trio.to_thread.run_sync(lambda: broker.produce_many(topic, values, partition=0))
        assert [int(text.split()[0]) for text in await quick.texts(count)] == list(range(count))
        assert [int(text.split()[0]) for text in await socket.texts(count)] == list(range(count))
        with trio.fail_after(HANG_SECONDS):
            while await metric(server.url, 'connections_aborted_total{reason="write_seconds"}') < 1:
                pass
        await until(lambda: server.service.slots_taken == 2)
        assert await metric(server.url, "owed_bytes") == 0
        with pytest.raises((trio.BrokenResourceError, AssertionError)):
            await stuck.read_to_end()
        broker.produce(topic, message("on"))
        assert await quick.texts(1) == ["on"]


async def test_who_reads_slowly_loses_nothing(broker: Broker, chats: Chats) -> None:
    topic, count = chats.topic("global"), 3000
    broker.create_topic(topic, partitions=1)
    async with (
        running(chats.settings_for(broker, memory__bytes=65_536)) as server,
        open_events(server.url, "slow", receive_buffer=SMALL_BUFFER) as slow,
        open_raw(server.url, receive_path("other")),
    ):
        await live(slow)
        values = [message(f"{number} {'x' * 500}") for number in range(count)]
        await trio.to_thread.run_sync(lambda: broker.produce_many(topic, values, partition=0))
        assert [int(text.split()[0]) for text in await slow.texts(count)] == list(range(count))


async def test_each_event_s_id_is_a_place_from_which_all_that_follows_comes(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("global")
    broker.create_topic(topic, partitions=2)
    for number in range(30):
        broker.produce(topic, message(str(number)), partition=number % 2)
    async with running(chats.settings_for(broker)) as server:
        async with open_events(server.url, "ann", "from=earliest") as client:
            events = [await client.message() for _ in range(30)]
        for index in (0, 7, 14, 15, 16, 28, 29):
            had = {event.said["text"] for event in events[: index + 1]}
            async with open_events(server.url, "ann", headers={"last-event-id": events[index].last_id}) as client:
                rest = await client.texts(29 - index)
            assert had | set(rest) == {str(number) for number in range(30)}
            assert not had & set(rest)


@pytest.mark.promise("p-events-refused")
async def test_refusals_are_those_of_a_websocket(broker: Broker, chats: Chats) -> None:
    broker.create_topic(chats.topic("global"))
    async with running(chats.settings_for(broker, limits__catching_up=1)) as server:
        async with open_events(server.url, "ann", "from=yesterday") as client:
            await client.read_to_end()
            assert (client.status, json.loads(client.body)["field"]) == (400, "from")
        async with open_events(server.url, "a/b") as client:
            assert client.status == 400
        async with open_events(server.url, "ann", "from=earliest") as client:
            await live(client)
            async with open_events(server.url, "bob", "from=earliest") as other:
                assert other.status == 200  # the first one has caught up
