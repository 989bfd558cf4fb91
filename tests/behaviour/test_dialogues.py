"""The WebSockets that answer, on the real service: subscribing and sending by text frames, their limits, their ends."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import trio

from tests.support.brokers import Broker, EmbeddedBroker, KafkaCluster
from tests.support.calls import following, metric, running, until
from tests.support.chats import Chats, message
from tests.support.clients import Delivery, Opcode, RawClient, client_frame, close_code, http, open_chat, open_raw, refusal
from tests.support.leaks import tasks

BOTH = pytest.mark.parametrize("path", ["/subscribing/ann", "/send-message/chat/room1"])
RESTARTS = (1012, "the service is restarting; reconnect")


async def answer(client: RawClient, said: str) -> dict[str, object]:
    """Say something, and return the answer."""
    await client.send_frame(Opcode.TEXT, said.encode())
    found: dict[str, object] = json.loads(await client.next_text())
    return found


def chats_in(answered: object) -> list[str]:
    assert isinstance(answered, dict)
    return [followed["chat"] for followed in answered["chats"]]


def spoken(text: str, sender: str = "bob") -> str:
    return json.dumps({"sender": sender, "text": text, "tag": None})


@pytest.mark.promise("p-dialogue-stays")
async def test_what_is_subscribed_in_a_dialogue_is_delivered_at_once_and_stays(broker: Broker, chats: Chats) -> None:
    for name in ("room1", "room2", "room3"):
        broker.create_topic(chats.topic(name))
    async with running(chats.settings_for(broker)) as server, open_chat(server.url, "ann") as live:
        async with open_raw(server.url, f"/subscribing/ann?topic=room1&topic={chats.topic('room2')}") as client:
            first = json.loads(await client.next_text())
            assert first == (await http(server.url, "GET", "/subscribing/ann")).json()
            assert chats_in(first) == ["global", "room1", "room2"]
            broker.produce(chats.topic("room2"), message("to two"))
            assert await live.texts(1) == ["to two"]
            assert (await answer(client, "no such name!"))["field"] == "topic"
            assert chats_in(await answer(client, "room3")) == ["global", "room1", "room2", "room3"]
            broker.produce(chats.topic("room3"), message("to three"))
            assert await live.texts(1) == ["to three"]
        assert await following(server.url, "ann") == ["global", "room1", "room2", "room3"]
        broker.produce(chats.topic("room1"), message("to one"))
        assert await live.texts(1) == ["to one"]


async def test_what_is_sent_in_a_dialogue_is_acknowledged_in_order_and_delivered(broker: Broker, chats: Chats) -> None:
    broker.create_topic(chats.topic("global"))
    settings = chats.settings_for(broker, sending__enabled=True)
    async with (
        running(settings) as server,
        open_chat(server.url, "ann") as live,
        open_raw(server.url, "/send-message/chat/global") as client,
    ):
        said = [spoken(f"m{n}") for n in range(100)]
        said.insert(50, "what is this?")
        await client.send(b"".join(client_frame(Opcode.TEXT, text.encode()) for text in said))
        answers = [json.loads(await client.next_text()) for _ in said]
        wrong = answers.pop(50)
        assert (set(wrong), wrong["field"]) == ({"error", "field"}, None)
        partitions = {answered["partition"] for answered in answers}
        assert len(partitions) == 1  # a sender's messages stay in order
        offsets = [answered["offset"] for answered in answers]
        assert offsets == sorted(set(offsets))
        assert {answered["topic"] for answered in answers} == {chats.topic("global")}
        assert await live.take(100) == [Delivery("bob", f"m{n}", None, "global") for n in range(100)]


async def test_a_chat_without_a_topic_is_an_answer_until_there_is_one(kafka: KafkaCluster, chats: Chats) -> None:
    settings = chats.settings_for(kafka, sending__enabled=True)
    async with running(settings) as server, open_raw(server.url, "/send-message/chat/room1") as client:
        assert (await answer(client, spoken("too early")))["field"] == "chat"
        kafka.create_topic(chats.topic("room1"))
        assert (await answer(client, spoken("now")))["offset"] == 0


@pytest.mark.promise("p-earlier-receiving")
async def test_the_earlier_system_s_clients_work_unchanged(broker: Broker, chats: Chats) -> None:
    broker.create_topic(chats.topic("room1"))
    settings = chats.settings_for(broker, sending__enabled=True)
    async with running(settings) as server, open_chat(server.url, "ann", path="/receive-messages/user/ann") as live:
        answered = await http(server.url, "POST", "/subscribing/ann/room1", json_body={"username": "ann"})
        assert answered.status == 200
        assert chats_in(answered.json()) == ["global", "room1"]
        async with open_raw(server.url, "/send-message/chat/room1") as client:
            assert "offset" in await answer(client, json.dumps({"sender": "bob", "text": "hello", "tag": "x"}))
        assert await live.next() == Delivery("bob", "hello", "x", "room1")


@BOTH
@pytest.mark.promise("p-dialogue-limits")
async def test_too_many_messages_or_too_large_a_one_end_it(embedded: EmbeddedBroker, chats: Chats, path: str) -> None:
    async with running(chats.settings_for(embedded)) as server:
        async with open_raw(server.url, path) as client:
            await client.send(client_frame(Opcode.TEXT, b"?") * 1001)
            *answers, last = await client.read_to_end()
            assert close_code(last) == (1008, "over 1000 messages in 10 s")
            assert {frame.opcode for frame in answers} <= {Opcode.TEXT}
        async with open_raw(server.url, path) as client:
            await client.send_frame(Opcode.TEXT, b"x" * 65_536)
            assert "error" in json.loads(await client.next_text())
            await client.send_frame(Opcode.TEXT, b"x" * 65_537)
            [last] = await client.read_to_end()
            assert close_code(last)[0] == 1009
        await until(lambda: server.service.slots_taken == 0)
        assert await metric(server.url, "sessions") == 0
        assert await metric(server.url, 'sessions_closed_total{code="1008"}') == 1


@BOTH
async def test_nothing_is_left_of_a_dialogue_however_its_client_goes(embedded: EmbeddedBroker, chats: Chats, path: str) -> None:
    async with running(chats.settings_for(embedded)) as server:
        before = Counter(tasks())
        for leave in ("close frame", "FIN", "RST"):
            async with open_raw(server.url, path) as client:
                assert await metric(server.url, "sessions") == 1
                await client.send(client_frame(Opcode.TEXT, b"room1") * 30)
                if leave == "close frame":
                    await client.send_frame(Opcode.CLOSE, (1000).to_bytes(2, "big"))
                elif leave == "FIN":
                    await client.half_close()
                else:
                    client.reset()
                await until(lambda: server.service.slots_taken == 0)
        await until(lambda: not Counter(tasks()) - before)
        assert await metric(server.url, "sessions") == 0


@pytest.mark.promise("p-dialogue-last-words")
async def test_a_message_right_before_the_close_frame_is_sent_all_the_same(embedded: EmbeddedBroker, chats: Chats) -> None:
    async with (
        running(chats.settings_for(embedded)) as server,
        open_chat(server.url, "ann") as live,
        open_raw(server.url, "/send-message/chat/global") as client,
    ):
        close = client_frame(Opcode.CLOSE, (1000).to_bytes(2, "big"))
        await client.send(client_frame(Opcode.TEXT, spoken("the last word").encode()) + close)
        assert await live.texts(1) == ["the last word"]


@BOTH
@pytest.mark.promise("p-dialogue-limits")
async def test_at_the_drain_a_dialogue_is_told(embedded: EmbeddedBroker, chats: Chats, path: str) -> None:
    async with running(chats.settings_for(embedded)) as server, open_raw(server.url, path) as client:
        server.shut_down()
        assert [close_code(frame) for frame in await client.read_to_end()] == [RESTARTS]
        await server.ended()


async def test_a_client_that_reads_no_answers_is_cut_and_disturbs_nobody(embedded: EmbeddedBroker, chats: Chats) -> None:
    settings = chats.settings_for(embedded, limits__write_seconds=1.0)
    async with running(settings) as server, open_chat(server.url, "ann") as live:
        async with open_raw(server.url, "/subscribing/bob", receive_buffer=4096) as client:
            ended = False

            async def chatter() -> None:
                nonlocal ended
                try:
                    while True:
                        await client.send(client_frame(Opcode.TEXT, b"!" * 60_000))
                        await trio.sleep(0.02)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    ended = True

            async with trio.open_nursery() as nursery:
                nursery.start_soon(chatter)
                for n in range(20):
                    embedded.produce(chats.topic("global"), message(f"m{n}"))
                    assert await live.texts(1) == [f"m{n}"]
                await until(lambda: ended or server.service.slots_taken == 1)
                nursery.cancel_scope.cancel()
        await until(lambda: server.service.slots_taken == 1)


@pytest.mark.promise("p-dialogue-limits")
async def test_pages_of_other_origins_are_refused_on_the_wire(embedded: EmbeddedBroker, chats: Chats) -> None:
    settings = chats.settings_for(embedded, access__origins=["https://chat.example"])
    async with running(settings) as server:
        for path in ("/receive-message/client/ann", "/subscribing/ann", "/send-message/chat/room1"):
            refused = await refusal(server.url, path, headers={"Origin": "https://other.example"})
            assert refused.status == 403
            assert set(json.loads(refused.body)) == {"error", "field"}
            async with open_raw(server.url) as client:
                assert (await client.handshake(path, headers={"Origin": "https://chat.example"})).status == 101
        preflight = await http(
            server.url,
            "OPTIONS",
            "/send-message/chat/room1",
            headers={"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"},
        )
        assert preflight.status == 200
        assert preflight.headers["access-control-allow-origin"] == "https://chat.example"
        assert "POST" in preflight.headers["access-control-allow-methods"]
