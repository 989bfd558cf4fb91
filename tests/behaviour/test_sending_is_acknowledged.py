"""A sent message is in its chat's topic, in its sender's order; a refused one leaves nothing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from kafka_chat.client import Refused
from kafka_chat.client import open_chat as open_client
from kafka_chat.delivery.ports import KeyedRecord
from kafka_chat.errors import BrokerError, NotFound, TooLarge
from tests.support.calls import running
from tests.support.clients import http, refusal
from tests.support.deadlines import HANG_SECONDS
from tests.support.instances import opened
from tests.support.serving import child
from tests.support.v1_client import open_v1

if TYPE_CHECKING:
    from tests.support.brokers import Broker, EmbeddedBroker, KafkaCluster
    from tests.support.chats import Chats


@pytest.mark.promise("p-send")
async def test_messages_are_where_the_answers_say(broker: Broker, chats: Chats) -> None:
    broker.create_topic(chats.topic("room"), 3)
    async with opened(chats.settings_for(broker)) as instance:
        answers = [await instance.sending.send("room", sender, f"hi {n}", None) for n in range(5) for sender in ("ann", "Zoë")]
    stored = {(record.partition, record.offset): record for record in broker.records(chats.topic("room"))}
    assert len(stored) == 10
    for number, answer in enumerate(answers):
        record = stored[answer.partition, answer.offset]
        sender = ("ann", "Zoë")[number % 2]
        assert record.key == sender.encode()
        assert record.value is not None
        assert json.loads(record.value) == {"sender": sender, "text": f"hi {number // 2}", "tag": None, "topic": chats.topic("room")}


async def test_a_chat_without_a_topic_is_not_made_by_sending(kafka: KafkaCluster, chats: Chats) -> None:
    async with opened(chats.settings_for(kafka)) as instance:
        with pytest.raises(NotFound):
            await instance.sending.send("room", "ann", "hi", None)
        # Nor where it was there a moment ago, though this broker makes every topic that a producer asks for.
        with pytest.raises(BrokerError):
            await instance.publisher.publish(chats.topic("room"), KeyedRecord(b"k", b"v"))
        assert chats.topic("room") not in kafka.topics()


async def test_with_the_embedded_broker_the_first_message_makes_the_chat(embedded: EmbeddedBroker, chats: Chats) -> None:
    async with opened(chats.settings_for(embedded)) as instance:
        await instance.sending.send("room", "ann", "hi", None)
        assert chats.topic("room") in embedded.topics()


async def test_a_record_that_the_topic_does_not_take_is_too_large(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("room"), max_message_bytes=10_000)
    async with opened(chats.settings_for(kafka)) as instance:
        with pytest.raises(TooLarge, match="does not accept a record of that size"):
            await instance.sending.send("room", "ann", "x" * 20_000, None)
        await instance.sending.send("room", "ann", "x" * 9_000, None)


async def test_the_largest_message_arrives(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("room"))
    settings = chats.settings_for(kafka)
    around = len(json.dumps({"sender": "ann", "text": "", "tag": None, "topic": chats.topic("room")}, separators=(",", ":")))
    async with opened(settings) as instance:
        await instance.sending.send("room", "ann", "x" * (settings.limits.message_bytes - around), None)
    [record] = kafka.records(chats.topic("room"))
    assert len(record.value or b"") == settings.limits.message_bytes


@pytest.mark.promise("p-op-send")
async def test_where_sending_is_off_the_same_is_said_on_every_way(embedded: EmbeddedBroker, chats: Chats) -> None:
    settings = chats.settings_for(embedded, sending__enabled=False)
    async with running(settings) as server, open_v1(server.url, "ann") as client:
        posted = await http(server.url, "POST", "/send-message/chat/global", json_body={"sender": "ann", "text": "hi"})
        assert posted.status == 403
        sentence, field = posted.json()["error"], posted.json()["field"]
        dialogue = await refusal(server.url, "/send-message/chat/global")
        assert (dialogue.status, dialogue.json()) == (403, posted.json())
        await client.control("live")
        op = await client.op(op="send", chat="global", text="hi")
        assert (op["code"], op["message"], op["field"]) == (403, sentence, field)
        async with open_client(server.url, "ann") as chat:
            with pytest.raises(Refused) as refused:
                await chat.send("global", "hi")
            assert (refused.value.code, refused.value.reason) == (403, sentence)
        async with child([sys.executable, "-m", "kafka_chat", "send", "global", "hi", "--as", "ann", "--url", server.url]) as command:
            assert await command.wait() == 1
            assert command.stderr == f"kafka-chat: {sentence} (403)\n"


async def test_a_topic_made_anew_takes_messages_of_the_same_process(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("room"))
    async with opened(chats.settings_for(kafka)) as instance:
        for number in range(3):
            await instance.sending.send("room", "ann", f"before {number}", None)
        kafka.delete_topic(chats.topic("room"))
        await trio.to_thread.run_sync(kafka.create_topic, chats.topic("room"))
        with trio.fail_after(HANG_SECONDS):
            while True:
                try:
                    await instance.sending.send("room", "ann", "after", None)
                except (BrokerError, NotFound):
                    await trio.sleep(0.2)
                else:
                    break
    assert [record.value for record in kafka.records(chats.topic("room")) if b"after" in (record.value or b"")]


async def test_a_thousand_messages_at_once_are_all_acknowledged(broker: Broker, chats: Chats) -> None:
    broker.create_topic(chats.topic("room"))
    async with opened(chats.settings_for(broker)) as instance:
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(instance.sending.send, "room", f"user{number % 10}", f"{number}", None)
        stored: dict[bytes, list[int]] = {}
        for record in broker.records(chats.topic("room")):
            assert record.key is not None
            assert record.value is not None
            stored.setdefault(record.key, []).append(int(json.loads(record.value)["text"]))
        assert sum(map(len, stored.values())) == 1000
