"""A very large cursor costs what its bytes cost, until the client has begun after it."""

from __future__ import annotations

import json

import pytest
from websockets.exceptions import ConnectionClosed

from kafka_chat.chat.resume_cursor import PARTITIONS, MessageIds, head_of_cursor, text_of, topic_entry
from tests.support.brokers import KafkaCluster
from tests.support.calls import running
from tests.support.chats import Chats, message
from tests.support.events_client import open_events
from tests.support.leaks import CursorsHeld
from tests.support.loop_steps import loop_steps
from tests.support.v1_client import open_v1

OF_ONE_TOPIC = text_of(head_of_cursor(None, 0) + topic_entry("elsewhere", "id77", [5] * PARTITIONS))
OF_TOPICS = text_of(head_of_cursor(None, 0) + b"".join(topic_entry(f"elsewhere{n}", "id77", [5]) for n in range(4000)))
OF_IDS = ".".join(MessageIds("elsewhere", "id77", n).of(9).decode() for n in range(1900))

# The longest that docs/protocol.md allows: nine of ten characters of a mebibyte, each partition by the id of its last message.
LONGEST = ".".join(MessageIds("elsewhere", "id77", n).of(9).decode() for n in range(PARTITIONS))[: (1 << 20) * 9 // 10].rpartition(".")[0]


@pytest.mark.parametrize("text", [OF_ONE_TOPIC, OF_TOPICS, OF_IDS, LONGEST], ids=["one topic", "topics", "ids", "longest"])
async def test_a_long_first_frame_holds_nobody_up_and_nothing_is_left_of_it(text: str, kafka: KafkaCluster, chats: Chats) -> None:
    held = CursorsHeld()
    assert 40_000 < len(text) < 1 << 20
    kafka.create_topic(chats.topic("global"))
    async with running(chats.settings_for(kafka)) as server, open_v1(server.url, "canary") as canary:
        await canary.control("live")
        with loop_steps() as steps:
            async with open_v1(server.url, "stranger", ("cursor", "frame")) as stranger:
                await stranger.say(json.dumps({"op": "start", "cursor": text}))
                await stranger.control("live")
                assert held() == 0
                kafka.produce(chats.topic("global"), message("hello"))
                assert await stranger.texts(1) == await canary.texts(1) == ["hello"]
        steps.check(ignore=("test_a_long_first_frame",))


async def test_the_longest_cursor_comes_in_the_first_frame_and_in_a_body(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    async with running(chats.settings_for(kafka)) as server, open_v1(server.url, "canary") as canary:
        await canary.control("live")
        async with open_v1(server.url, "ann", ("cursor", "frame")) as client:
            await client.say(json.dumps({"op": "start", "cursor": LONGEST}))
            await client.control("live")
            await client.say(json.dumps({"op": "send", "chat": "global", "text": "x" * 70_000}))  # what follows has the usual limit
            with pytest.raises(ConnectionClosed, match="a message may have 65536 bytes"):
                await client.control("never")
        async with open_events(server.url, "ann", body={"cursor": LONGEST}) as events:
            while (await events.next()).name != "live":
                pass
        kafka.produce(chats.topic("global"), message("hello"))
        assert await canary.texts(1) == ["hello"]


async def test_nothing_is_left_of_cursors_in_addresses_and_headers(kafka: KafkaCluster, chats: Chats) -> None:
    held = CursorsHeld()
    kafka.create_topic(chats.topic("global"))
    text = OF_IDS[: 300 * 38 - 1].rpartition(".")[0]
    async with running(chats.settings_for(kafka)) as server:
        async with open_v1(server.url, "ann", cursor=text) as client:
            await client.control("live")
            assert held() == 0
        async with open_events(server.url, "ann", headers={"Last-Event-ID": text}) as events:
            while (await events.next()).name != "live":
                pass
            assert held() == 0


@pytest.mark.promise("p-cursor-most")
async def test_a_cursor_that_names_more_than_the_most_is_refused_by_that_number(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    text = text_of(head_of_cursor(None, 0) + topic_entry("elsewhere", "id77", [5] * (PARTITIONS + 1)))
    async with running(chats.settings_for(kafka)) as server, open_v1(server.url, "ann", ("cursor", "frame")) as stranger:
        await stranger.say(json.dumps({"op": "start", "cursor": text}))
        with pytest.raises(ConnectionClosed) as closed:
            await stranger.next()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4400, "cursor names too many partitions; at most 32768 are allowed")
