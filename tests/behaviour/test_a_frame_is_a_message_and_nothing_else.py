"""A client gets one text frame of strict JSON for each record that is a message, and nothing else."""

from __future__ import annotations

import json

import pytest
import trio
from confluent_kafka import Producer

from tests.support.broker_client import produce_records
from tests.support.brokers import Broker
from tests.support.calls import metrics, running, subscribe
from tests.support.chats import Chats, message
from tests.support.clients import Delivery, Opcode, http, open_chat, open_raw, receive_path
from tests.support.deadlines import HANG_SECONDS

MESSAGE_BYTES = 1_000_000  # the default of limits.message_bytes

REJECTS: dict[str, list[bytes | None]] = {
    "tombstone": [None],
    "bad_utf8": [b'{"sender":"a","text":"\xff"}', b'{"sender":"a","text":"t","more":"\xed\xa0\x80"}', b"\x00\x01\xfe"],
    "bad_json": [
        b"",
        b"hello",
        b'{"sender":"a","text":"t"',
        b'{"sender":"a","text":"t"}{}',
        b'{"sender":"a","text":"t","more":NaN}',
        b'{"sender":"a","text":"t","more":Infinity}',
        b'{"sender":"a","text":"\\ud800"}',
        b'{"sender":"a","text":"t\n"}',
    ],
    "wrong_shape": [
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"sender":"a"}',
        b'{"text":"t"}',
        b'{"sender":null,"text":"t"}',
        b'{"sender":"a","text":1}',
        b'{"sender":"a","text":"t","tag":7}',
    ],
    "too_deep": [b'{"sender":"a","text":"t","more":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
}

EXOTIC = [
    "",
    "\0\x01\x1f\x7f",
    '"\\/\b\f\n\r\t',
    "\u2028\u2029\ufeff\ufffe\uffff",
    "e\u0301 é ﷽ \u202eright to left\u202c",
    "👩‍👩‍👧‍👦 \U0010ffff \U0001d54f",
    "</script><!-- &amp; {{7*7}} %s",
    "\x80\x9f\xa0",
]


@pytest.mark.promise("p-record-rejected")
async def test_records_that_are_no_message_are_counted_by_reason_and_delay_nobody(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("global")
    broker.create_topic(topic)
    async with running(chats.settings_for(broker)) as server, open_chat(server.url, "alice") as client:
        for reason, values in REJECTS.items():
            broker.produce_many(topic, [*values, message(f"after {reason}")], partition=0)
            assert await client.texts(1) == [f"after {reason}"]
        counted = await metrics(server.url)
        assert {reason: counted[f'kafka_chat_records_rejected_total{{reason="{reason}"}}'] for reason in REJECTS} == {
            reason: len(values) for reason, values in REJECTS.items()
        }


@pytest.mark.promise("p-frames")
async def test_any_text_comes_as_it_was_written(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("global")
    broker.create_topic(topic)
    written = [Delivery(text, text, tag, "global") for text in EXOTIC for tag in (None, text)]
    values = [
        json.dumps({"sender": d.sender, "text": d.text, "tag": d.tag}, ensure_ascii=ascii_only).encode()
        for ascii_only in (True, False)
        for d in written
    ]
    # At these lengths a frame's header changes its size.
    around = ["x" * (size - len(b'{"sender":"","text":"","tag":null,"chat":"global"}')) for size in (124, 125, 126, 127, 65535, 65536)]
    async with (
        running(chats.settings_for(broker)) as server,
        open_chat(server.url, "alice") as client,
        open_raw(server.url, receive_path("alice")) as raw,
    ):
        broker.produce_many(topic, [*values, *(message(text, sender="") for text in around)], partition=0)
        assert await client.take(len(values)) == written * 2
        assert await client.take(len(around)) == [Delivery("", text, None, "global") for text in around]
        frames = [await raw.next_frame() for _ in range(len(values) + len(around))]
        assert {(frame.opcode, frame.final) for frame in frames} == {(Opcode.TEXT, True)}
        assert [len(frame.payload) for frame in frames[len(values) :]] == [124, 125, 126, 127, 65535, 65536]
        assert frames[0].payload == b'{"sender":"","text":"","tag":null,"chat":"global"}'


@pytest.mark.promise("p-record")
async def test_keys_that_are_not_ours_are_ignored_and_the_topic_alone_decides_the_chat(broker: Broker, chats: Chats) -> None:
    broker.create_topic(chats.topic("room1"))
    async with running(chats.settings_for(broker)) as server:
        await subscribe(server.url, "alice", "room1")
        async with open_chat(server.url, "alice") as client:
            value = b'{"chat":"other","topic":["global"],"tag":"t","more":{"a":[1,null]},"text":"x","sender":"first","sender":"bob"}'
            broker.produce(chats.topic("room1"), value, headers=[("chat", b"other")], partition=0)
            broker.produce(chats.topic("room1"), b' {"text" : "no tag", "sender": "bob"}\n', partition=0)
            assert await client.take(2) == [Delivery("bob", "x", "t", "room1"), Delivery("bob", "no tag", None, "room1")]


async def test_a_record_of_a_million_bytes_comes_and_a_larger_one_does_not(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("global")
    broker.create_topic(topic)
    producer = Producer({**broker.client("large"), "message.max.bytes": 2_000_000})
    producer.list_topics(topic, timeout=HANG_SECONDS)

    def padded(text: str, size: int) -> bytes:
        value = message(text, more="")
        return value.replace(b'"more": ""', b'"more": "' + b"p" * (size - len(value)) + b'"')

    def framed(size: int) -> bytes:
        return message("x" * (size - len(b'{"sender":"alice","text":"","tag":null,"chat":"global"}')))

    async with (
        running(chats.settings_for(broker)) as server,
        open_chat(server.url, "alice") as client,
    ):
        values = [padded("fits", MESSAGE_BYTES), padded("too large", MESSAGE_BYTES + 1), framed(MESSAGE_BYTES), framed(MESSAGE_BYTES + 1)]
        assert [len(value) for value in values[:2]] == [MESSAGE_BYTES, MESSAGE_BYTES + 1]
        await trio.to_thread.run_sync(lambda: produce_records(producer, topic, [*values, message("last")], key=None, partition=0))
        fits, frame, last = await client.take(3)
        assert (fits.text, last.text) == ("fits", "last")
        assert len(json.dumps(frame._asdict(), separators=(",", ":"))) == MESSAGE_BYTES
        assert (await metrics(server.url))['kafka_chat_records_rejected_total{reason="too_large"}'] == 2


@pytest.mark.promise("p-any-sockets")
async def test_each_socket_of_a_user_gets_everything_the_senders_own_too(broker: Broker, chats: Chats) -> None:
    for chat in ("global", "room1"):
        broker.create_topic(chats.topic(chat))
    async with running(chats.settings_for(broker, sending__enabled=True)) as server:
        await subscribe(server.url, "alice", "room1")
        async with open_chat(server.url, "alice") as first, open_chat(server.url, "alice") as second, open_chat(server.url, "bob") as other:
            async with open_chat(server.url, "alice") as third:
                for chat in ("global", "room1"):
                    body = {"sender": "alice", "text": f"to {chat}", "tag": "t"}
                    answer = await http(server.url, "POST", f"/send-message/chat/{chat}", json_body=body)
                    assert answer.status == 200, answer
                for client in (first, second, third):
                    assert {*await client.take(2)} == {Delivery("alice", f"to {chat}", "t", chat) for chat in ("global", "room1")}
            # That one of them has left is nothing to the others.
            broker.produce(chats.topic("room1"), message("still here", sender="bob"))
            assert await first.texts(1) == await second.texts(1) == ["still here"]
            assert [delivery.chat for delivery in other.received] == ["global"]
