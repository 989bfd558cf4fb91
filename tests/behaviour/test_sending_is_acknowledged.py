"""A message that was sent is in its chat's topic, in its sender's order; one that was refused made nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from kafka_chat.delivery.ports import KeyedRecord
from kafka_chat.errors import BrokerError, NotFound, TooLarge
from tests.support.deadlines import HANG_SECONDS
from tests.support.instances import opened

if TYPE_CHECKING:
    from tests.support.brokers import Broker, EmbeddedBroker, KafkaCluster
    from tests.support.chats import Chats


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
        with pytest.raises(TooLarge, match="takes no record of that size"):
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
