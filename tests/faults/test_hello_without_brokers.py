"""While no broker answers, `hello` comes in two seconds whatever start a client asks for; the messages come when one is back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import trio

from kafka_chat.chat.resume_cursor import MessageIds
from tests.support.chats import message
from tests.support.clients import open_chat
from tests.support.serving import serving
from tests.support.v1_client import open_v1

if TYPE_CHECKING:
    from tests.support.brokers import KafkaCluster
    from tests.support.chats import Chats

pytestmark = pytest.mark.deadline(120)

HELLO_SECONDS = 2.0
BUSY_SECONDS = 2.0  # what a shared machine may add


@pytest.mark.promise("p-hello-without-brokers")
async def test_hello_comes_and_then_what_is_due(hanging: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("global")
    hanging.create_topic(topic)
    for number in range(5):
        hanging.produce(topic, message(f"m{number}"))
    beyond = MessageIds(topic, hanging.topic_id(topic), 0).of(100).decode()
    async with serving(chats.settings_for(hanging, memory__bytes=65_536)) as server, open_chat(server.url, "bob") as bob:
        hanging.produce(topic, message("m5"))
        await bob.take(1)  # the chat is followed, so its log is there
        hanging.freeze()
        try:
            began = time.monotonic()
            async with open_v1(server.url, "ann", ("rewind", "3")) as rewound, open_v1(server.url, "ann", ("cursor", beyond)) as far:
                await rewound.control("hello")
                assert (await far.control("hello"))["resume"] == "exact"
                assert time.monotonic() - began < 2 * HELLO_SECONDS + BUSY_SECONDS, "one after the other"
                await trio.to_thread.run_sync(hanging.thaw)
                assert await rewound.texts(3) == ["m3", "m4", "m5"]
                gap = await far.control("gap")
                assert (gap["first_lost"], gap["first_left"], gap["cause"]) == (101, 6, "truncated")
                hanging.produce(topic, message("m6"))
                assert await far.texts(1) == ["m6"]
        finally:
            hanging.thaw()
