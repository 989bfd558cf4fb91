"""The installed command as users run it: a process, a Kafka, and libraries for WebSocket and HTTP that are not ours."""

from __future__ import annotations

from tests.support.brokers import KafkaCluster
from tests.support.chats import Chats, message
from tests.support.clients import http, open_chat
from tests.support.serving import spawned, until_ready


def followed(chats: Chats, *names: str) -> list[dict[str, object]]:
    return [{"chat": name, "topic": chats.topic(name), "exists": True, "default": name == "global"} for name in names]


async def test_messages_go_from_kafka_to_a_websocket(kafka: KafkaCluster, chats: Chats) -> None:
    for chat in ("global", "room1"):
        kafka.create_topic(chats.topic(chat))
    flags = ("--bootstrap", kafka.bootstrap)
    names = {"KAFKA_CHAT_CHATS__PREFIX": chats.prefix, "KAFKA_CHAT_SUBSCRIPTIONS__TOPIC": chats.subscriptions_topic}
    async with spawned(*flags, env=names) as server:
        await until_ready(server)
        async with open_chat(server.url, "ada") as ada, open_chat(server.url, "bob") as bob:
            answer = await http(server.url, "POST", f"/subscribing/ada?topic={chats.topic('room1')}")
            assert (answer.status, answer.json()) == (200, {"username": "ada", "chats": followed(chats, "global", "room1")})
            kafka.produce(chats.topic("room1"), message("hello", sender="carl", tag="blue"))
            assert await ada.next() == ("carl", "hello", "blue", "room1")
            kafka.produce(chats.topic("global"), message("to all", sender="carl"))
            for client in (ada, bob):
                assert await client.next() == ("carl", "to all", None, "global")
            metrics = (await http(server.url, "GET", "/metrics")).text
            assert "\nkafka_chat_messages_delivered_total 3.0\n" in metrics
            assert "\nkafka_chat_sockets 2.0\n" in metrics
            server.terminate()
            for client in (ada, bob):
                assert await client.closed() == (1012, "the service is restarting; reconnect")
        assert await server.wait() == 0
        assert "Traceback" not in server.stderr


async def test_without_a_kafka_it_can_be_tried_out() -> None:
    async with spawned() as server:
        await until_ready(server)
        async with open_chat(server.url, "ada") as ada:
            assert (await http(server.url, "POST", "/subscribing/ada?topic=room1")).status == 200
            for number in range(3):
                answer = await http(server.url, "POST", "/send-message/chat/room1", json_body={"sender": "bob", "text": str(number)})
                assert answer.status == 200
                assert answer.json()["topic"] == "kafka.chat.room1"
            for number in range(3):
                assert await ada.next() == ("bob", str(number), None, "room1")
        server.terminate()
        assert await server.wait() == 0
