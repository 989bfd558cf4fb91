"""kafka-chat.v1 over a WebSocket, on the real service: options, notices, ops and refusals."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.brokers import Broker, KafkaCluster
from tests.support.calls import following, running, until
from tests.support.chats import Chats, message
from tests.support.clients import Delivery, open_chat, open_raw, receive_path, refusal
from tests.support.v1_client import open_v1


@pytest.mark.promise("p-cursor", "p-hello", "p-cursor-everywhere")
async def test_a_client_that_comes_back_gets_exactly_what_it_missed_from_any_instance(broker: Broker, chats: Chats) -> None:
    broker.create_topic(chats.topic("global"))
    settings = chats.settings_for(broker)
    async with running(settings) as first:
        async with open_v1(first.url, "ann") as client:
            assert client.subprotocol == "kafka-chat.v1"
            hello = await client.control("hello")
            assert (hello["user"], hello["chats"], hello["resume"]) == ("ann", ["global"], "none")
            await client.control("live")
            for n in range(3):
                broker.produce(chats.topic("global"), message(f"m{n}"))
            assert sorted(await client.texts(3)) == ["m0", "m1", "m2"]
        for n in range(3, 6):
            broker.produce(chats.topic("global"), message(f"m{n}"))
    async with running(settings) as second, open_v1(second.url, "ann", cursor=client.cursor) as back:
        assert (await back.control("hello"))["resume"] == "exact"
        assert sorted(await back.texts(3)) == ["m3", "m4", "m5"]
        await back.control("live")
        broker.produce(chats.topic("global"), message("new"))
        assert await back.texts(1) == ["new"]


async def test_a_message_has_its_key_headers_and_time(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    async with running(chats.settings_for(kafka)) as server, open_v1(server.url, "ann", ("meta", "1"), subprotocols=()) as client:
        await client.control("live")
        kafka.produce(chats.topic("global"), message("a"), key=b"k\xff", headers=[("one", b"1"), ("none", None), ("bin", b"\xfe")])
        meta = (await client.next())["meta"]
    assert client.subprotocol is None
    assert meta["key"] == {"base64": "a/8="}
    assert meta["headers"] == [["one", "1"], ["none", None], ["bin", {"base64": "/g=="}]]
    assert (meta["partition"], meta["offset"]) == (0, 0)
    assert abs(meta["time"] / 1000 - time.time()) < 60


@pytest.mark.promise("p-subscribed", "p-pong", "p-re", "p-ops-in-order", "p-op-subscribe", "p-op-unsubscribe", "p-op-send")
async def test_ops_are_answered_in_order_and_count_for_all_sockets(broker: Broker, chats: Chats) -> None:
    for chat in ("global", "room1"):
        broker.create_topic(chats.topic(chat))
    settings = chats.settings_for(broker, sending__enabled=True)
    async with running(settings) as server, open_v1(server.url, "ann") as client, open_chat(server.url, "ann") as other:
        await client.control("live")
        assert await client.op(op="ping", re=[1, "x"]) == {"type": "pong", "re": [1, "x"]}
        subscribed = await client.op(op="subscribe", chat=chats.topic("room1"), re=2)
        assert (subscribed["type"], subscribed["re"], subscribed["chat"], subscribed["exists"]) == ("subscribed", 2, "room1", True)
        assert await following(server.url, "ann") == ["global", "room1"]
        sent = await client.op(op="send", chat="room1", text="hi", tag="t", re=3)
        frames = [sent, (await client.next())["meta"]]
        answer = next(frame for frame in frames if frame.get("type") == "sent")
        assert {name: answer[name] for name in ("re", "chat", "offset")} == {"re": 3, "chat": "room1", "offset": 0}
        assert await other.take(1) == [Delivery("ann", "hi", "t", "room1")]
        unsubscribed = await client.op(op="unsubscribe", chats=["room1"])
        assert (unsubscribed["type"], unsubscribed["positions"][str(answer["partition"])]) == ("unsubscribed", 1)
        assert "re" not in unsubscribed
        assert await following(server.url, "ann") == ["global"]


@pytest.mark.promise("p-sent")
async def test_what_was_sent_comes_with_the_id_that_the_answer_has(broker: Broker, chats: Chats) -> None:
    broker.create_topic(chats.topic("global"))
    async with running(chats.settings_for(broker, sending__enabled=True)) as server, open_v1(server.url, "ann") as client:
        await client.control("live")
        for number in range(2):
            sent = await client.op(op="send", chat="global", text="hi")
            frames = [sent, (await client.next())["meta"]]
            told, shown = sorted(frames, key=lambda frame: "type" not in frame)
            assert told["type"] == "sent"
            if number or not broker.embedded:  # which tells no leader's epoch before the first record
                assert told["id"] == shown["id"]


@pytest.mark.promise("p-sent")
async def test_what_was_sent_to_a_chat_that_nobody_here_follows_has_no_id(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("elsewhere"))
    async with running(chats.settings_for(kafka, sending__enabled=True)) as server, open_v1(server.url, "ann") as client:
        await client.control("live")
        assert (await client.op(op="send", chat="elsewhere", text="hi")) == {
            "type": "sent",
            "chat": "elsewhere",
            "partition": 0,
            "offset": 0,
        }


@pytest.mark.parametrize(
    ("said", "code", "field", "marked"),
    [
        ("what?", 400, None, None),
        (b"\x00", 400, None, None),
        ('{"op":"dance","re":5}', 400, "op", 5),
        ('{"re":6}', 400, None, 6),
        ('{"op":"subscribe","re":7}', 400, "chat", 7),
        ('{"op":"subscribe","chat":"no name!"}', 400, "chat", None),
        ('{"op":"unsubscribe","chat":"global","re":8}', 409, "chat", 8),
        ('{"op":"send","chat":"global","text":"x","re":9}', 403, None, 9),
        ('{"op":"ping","re":"' + "x" * 200 + '"}', 400, "re", None),
    ],
)
@pytest.mark.promise("p-error-frame", "p-re")
async def test_what_cannot_be_done_is_answered_and_the_socket_stays(
    broker: Broker, chats: Chats, said: str | bytes, code: int, field: str | None, marked: int | None
) -> None:
    broker.create_topic(chats.topic("global"))
    async with running(chats.settings_for(broker, sending__enabled=False)) as server, open_v1(server.url, "ann") as client:
        await client.control("live")
        await client.say(said)
        answer = (await client.next())["meta"]
        assert (answer["type"], answer["code"], answer["field"], answer.get("re")) == ("error", code, field, marked)
        assert await client.op(op="ping") == {"type": "pong"}


@pytest.mark.promise("p-ops-wait")
async def test_too_many_ops_that_wait_end_the_connection(kafka: KafkaCluster, chats: Chats) -> None:
    async with running(chats.settings_for(kafka)) as server, open_v1(server.url, "ann") as client:
        await client.control("live")
        with suppress(ConnectionClosed):
            for n in range(1000):
                await client.say(json.dumps({"op": "subscribe", "chat": f"room{n}"}))
        assert await client.closed() == (1008, "over 32 ops wait for their answers")


@pytest.mark.promise("p-cursor-frame", "p-op-start")
async def test_a_long_cursor_comes_as_the_first_frame(broker: Broker, chats: Chats) -> None:
    broker.create_topic(chats.topic("global"))
    async with running(chats.settings_for(broker)) as server:
        async with open_v1(server.url, "ann") as client:
            await client.control("live")
        broker.produce(chats.topic("global"), message("missed"))
        cursor = ".".join([client.cursor] * 200)
        async with open_v1(server.url, "ann", ("cursor", "frame")) as back:
            await back.say(json.dumps({"op": "start", "cursor": cursor}))
            assert (await back.control("hello"))["resume"] == "exact"
            assert await back.texts(1) == ["missed"]
        async with open_v1(server.url, "ann", ("cursor", "frame")) as wrong:
            await wrong.say(json.dumps({"op": "ping"}))
            assert (await wrong.closed()).code == 4400


@pytest.mark.promise("p-op-start")
async def test_a_client_whose_first_frame_is_awaited_is_told_to_come_again_at_a_restart(broker: Broker, chats: Chats) -> None:
    async with running(chats.settings_for(broker, server__drain_seconds=60.0)) as server:
        async with open_v1(server.url, "ann", ("cursor", "frame")) as client:
            server.shut_down()
            reconnect = await client.control("reconnect")
            assert 0 <= reconnect["after_ms"] <= 3000
            assert reconnect["cursor"] is None
            assert await client.closed() == (1012, "the service is restarting; reconnect")
        await server.ended()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("from", "12345", "milliseconds"),
        ("from", "yesterday", "latest, earliest"),
        ("from", "2026-01-01T00:00:00", "zone"),
        ("until", "2999-01-01T00:00:00Z", "future"),
        ("rewind", "1001", "from 1 to 1000"),
        ("rewind", "-1", "from 1 to 1000"),
        ("cursor", "hello!", "this is not a cursor"),
        ("chat", "no-name!", "letters"),
    ],
)
@pytest.mark.promise("p-bad-parameters")
async def test_a_bad_parameter_is_named_by_a_status_or_a_close_frame(
    kafka: KafkaCluster, chats: Chats, name: str, value: str, says: str
) -> None:
    async with running(chats.settings_for(kafka)) as server:
        answer = await refusal(server.url, f"{receive_path('ann')}?{name}={value}")
        assert (answer.status, answer.json()["field"]) == (400, name)
        assert says in answer.json()["error"]
        async with open_v1(server.url, "ann", (name, value)) as client:
            closed = await client.closed()
        assert closed.code == 4400
        assert name in closed.reason
        assert says in closed.reason, "the close frame has room for what is needed"
        assert not closed.reason.endswith("…")


@pytest.mark.promise("p-reconnect")
async def test_who_has_to_go_is_told_when_to_come_back_and_with_what(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    settings = chats.settings_for(kafka)
    async with running(settings) as server, open_v1(server.url, "ann") as client:
        await client.control("live")
        kafka.produce(chats.topic("global"), message("last"))
        assert await client.texts(1) == ["last"]
        server.shut_down()
        reconnect = await client.control("reconnect")
        assert 0 <= reconnect["after_ms"] <= 3000
        assert (await client.closed()).code == 1012
        await server.ended()
    async with running(settings) as server, open_v1(server.url, "ann", cursor=reconnect["cursor"]) as back:
        kafka.produce(chats.topic("global"), message("next"))
        assert await back.texts(1) == ["next"]


async def test_too_many_who_catch_up_are_told_to_come_again(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    kafka.produce_many(chats.topic("global"), [message("x" * 1000)] * 30_000)
    settings = chats.settings_for(kafka, limits__catching_up=1)
    async with running(settings) as server:
        from_start = ("from", "earliest")
        # It reads none of it, so it catches up for as long as it is there.
        async with open_raw(server.url, receive_path("slow") + "?from=earliest"), open_chat(server.url, "plain"):
            async with open_v1(server.url, "ann", from_start) as second:
                assert (await second.closed()).code == 1013
            answer = await refusal(server.url, receive_path("ann") + "?from=earliest")
            assert (answer.status, answer.headers["retry-after"]) == (503, "2")
        await until(lambda: server.service.slots.catching_up == 0)
        async with open_v1(server.url, "ann", ("from", "latest")) as third:
            await third.control("live")


async def test_a_client_resumes_exactly_on_the_markers_of_transactions(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("global")
    kafka.create_topic(topic)
    committed, aborted = kafka.transaction(), kafka.transaction()
    async with running(chats.settings_for(kafka)) as server:
        async with open_v1(server.url, "ann") as client:
            await client.control("live")
            kafka.produce(topic, message("m0"))
            assert await client.texts(1) == ["m0"]
        committed.produce(topic, message("m1"))
        committed.commit()
        aborted.produce(topic, message("never"))
        aborted.abort()
        async with open_v1(server.url, "ann", cursor=client.cursor) as on_a_marker:
            assert await on_a_marker.texts(1) == ["m1"]
            await on_a_marker.control("live")  # its cursor is behind the markers
        async with open_v1(server.url, "ann", cursor=on_a_marker.cursor) as back:
            assert (await back.control("hello"))["resume"] == "exact"
            kafka.produce(topic, message("m2"))
            assert await back.texts(1) == ["m2"]


@pytest.mark.promise("p-v1-asked-for")
async def test_only_the_route_that_speaks_it_names_the_subprotocol(kafka: KafkaCluster, chats: Chats) -> None:
    offered = {"Sec-WebSocket-Protocol": "chat, kafka-chat.v1"}
    async with running(chats.settings_for(kafka)) as server:
        for path, named in [(receive_path("ann"), "kafka-chat.v1"), ("/subscribing/ann", None)]:
            async with open_raw(server.url) as client:
                response = await client.handshake(path, headers=offered)
                assert response.status == 101
                assert response.headers.get("sec-websocket-protocol") == named
