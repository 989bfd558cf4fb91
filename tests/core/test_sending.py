"""Messages of clients, on a Kafka in memory."""

from __future__ import annotations

import json

import pytest
import trio

from kafka_chat.delivery.ports import EMBEDDED_TOPIC_ID, Published
from kafka_chat.delivery.writes.sending import Placed, Sending
from kafka_chat.errors import BrokerUnreachable, NotFound, RequestError, TooLarge
from kafka_chat.settings.model import KafkaSettings, Limits, Settings
from tests.support.fake_subscription_log import FakePublisher
from tests.support.fake_topics import NAMES, FakeKafka

TOPIC = "kafka.chat.room1"


def made(*, embedded: bool = False, exists: bool = True) -> tuple[Sending, FakePublisher, FakeKafka]:
    kafka, publisher = FakeKafka(), FakePublisher()
    if exists:
        kafka.create(TOPIC)
    settings = Settings(kafka=KafkaSettings(embedded=embedded), limits=Limits(message_bytes=1024))
    return Sending(publisher, lookup=kafka, names=NAMES, settings=settings), publisher, kafka


@pytest.mark.parametrize("tag", [None, "x"])
async def test_a_message_is_written_with_its_sender_as_key(tag: str | None) -> None:
    sending, publisher, _ = made()
    assert await sending.send("room1", "Zoë", "hi\u2028 \U0001f600", tag) == Published(TOPIC, 0, 0)
    [(key, value, _)] = publisher.topics[TOPIC]
    assert key == "Zoë".encode()
    assert value is not None
    assert json.loads(value) == {"sender": "Zoë", "text": "hi\u2028 \U0001f600", "tag": tag, "topic": TOPIC}


async def test_a_message_is_placed_in_the_topic_that_is_there() -> None:
    sending, _, kafka = made()
    assert await sending.place("room1", "ann", "hi", None) == Placed(
        Published(TOPIC, 0, 0), (await kafka.describe([TOPIC]))[TOPIC].topic_id
    )
    assert await sending.place("room1", "ann", "ho", None) == Placed(
        Published(TOPIC, 0, 1), (await kafka.describe([TOPIC]))[TOPIC].topic_id
    )
    embedded, _, _ = made(embedded=True, exists=False)
    assert await embedded.place("room1", "ann", "hi", None) == Placed(Published(TOPIC, 0, 0), EMBEDDED_TOPIC_ID)


async def test_a_chat_without_a_topic_is_not_found_and_gets_nothing() -> None:
    sending, publisher, _ = made(exists=False)
    with pytest.raises(NotFound, match=r"room1 is not a chat: the topic kafka\.chat\.room1 does not exist"):
        await sending.send("room1", "ann", "hi", None)
    assert publisher.topics == {}


async def test_with_the_embedded_broker_the_first_message_makes_the_chat() -> None:
    sending, publisher, _ = made(embedded=True, exists=False)
    await sending.send("room1", "ann", "hi", None)
    assert len(publisher.topics[TOPIC]) == 1


async def test_a_message_up_to_the_limit_is_sent_and_one_byte_more_is_refused() -> None:
    sending, publisher, _ = made()
    frame = len(json.dumps({"sender": "ann", "text": "", "tag": None, "topic": TOPIC}, separators=(",", ":")))
    await sending.send("room1", "ann", "x" * (1024 - frame), None)
    with pytest.raises(TooLarge, match=r"text .* 1025 bytes; limits.message_bytes is 1024") as caught:
        await sending.send("room1", "ann", "x" * (1025 - frame), None)
    assert caught.value.field == "text"
    assert len(publisher.topics[TOPIC]) == 1


async def test_a_lone_surrogate_is_refused() -> None:
    sending, _, _ = made()
    with pytest.raises(RequestError, match="lone surrogate"):
        await sending.send("room1", "ann", "\ud800", None)


@pytest.mark.promise("p-may-be-written")
async def test_no_acknowledgement_is_told_within_five_seconds(autojump_clock) -> None:
    sending, publisher, kafka = made()
    publisher.away = True
    began = trio.current_time()
    with pytest.raises(BrokerUnreachable):
        await sending.send("room1", "ann", "hi", None)
    publisher.away = False
    publisher.gate = trio.Event()
    with pytest.raises(BrokerUnreachable, match="no answer within 5 s; it may or may not have been written"):
        await sending.send("room1", "ann", "hi", None)
    assert trio.current_time() - began <= 10.01
    kafka.away = True
    await trio.sleep(10)
    with pytest.raises(BrokerUnreachable) as asked_only:
        await sending.send("room1", "ann", "hi", None)
    assert "written" not in str(asked_only.value)


async def test_that_a_chat_exists_is_asked_once_in_a_while_and_that_it_does_not_each_time(autojump_clock) -> None:
    sending, _, kafka = made(exists=False)
    with pytest.raises(NotFound):
        await sending.send("room1", "ann", "hi", None)
    kafka.create(TOPIC)
    await sending.send("room1", "ann", "hi", None)
    kafka.delete(TOPIC)
    await sending.send("room1", "ann", "hi", None)  # the publisher makes no topic either
    await trio.sleep(3.1)
    with pytest.raises(NotFound):
        await sending.send("room1", "ann", "hi", None)
