"""Another cluster answers at the brokers' addresses while the service runs: every instance notices, and reports every lost message."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from kafka_chat.chat.resume_cursor import parse
from tests.support.brokers import KafkaCluster
from tests.support.calls import following, metric, running, subscribe, subscribe_patiently
from tests.support.chats import Chats, message
from tests.support.clients import http
from tests.support.deadlines import HANG_SECONDS
from tests.support.v1_client import V1Client, open_v1

pytestmark = pytest.mark.deadline(240)

OLD, NEW = 3, 6


async def page(url: str, cursor: str) -> Any:
    """Ask for a page after a cursor."""
    return await http(url, "GET", f"/history/room?{urlencode({'cursor': cursor})}")


async def send(url: str, text: str) -> int:
    """Send a message as a client does that comes again where the answer is 503, and return its offset."""
    with trio.fail_after(HANG_SECONDS):
        while True:
            answer = await http(url, "POST", "/send-message/chat/room", json_body={"sender": "bob", "text": text})
            if answer.status != 503:
                offset: int = answer.json()["offset"]
                return offset
            await trio.sleep(0.2)


async def gap_told(client: V1Client, chat: str) -> tuple[int, int, str]:
    """Return the next gap of a chat."""
    while (gap := await client.control("gap"))["chat"] != chat:
        pass
    return gap["first_lost"], gap["first_left"], gap["cause"]


@pytest.mark.promise("p-cursor-everywhere", "p-another-cluster", "p-none")
async def test_cursors_made_after_another_cluster_has_come_are_of_that_one_on_every_instance(hanging: KafkaCluster, chats: Chats):
    topic = chats.topic("room")
    settings = chats.settings_for(hanging, sending__enabled=True)
    await trio.to_thread.run_sync(hanging.create_topic, topic)
    async with running(settings) as server, running(settings) as other, open_v1(server.url, "ann", ("chat", "room")) as here:
        await here.control("live")
        await subscribe(server.url, "bob", "room")
        await trio.to_thread.run_sync(hanging.produce_many, topic, [message(f"old {n}") for n in range(OLD)])
        await here.texts(OLD)
        for sent in range(3):
            assert await send(server.url, f"sent {sent}") == OLD + sent
        await here.texts(3)
        of_the_old = here.cursor

        await trio.to_thread.run_sync(hanging.replace)
        await trio.to_thread.run_sync(hanging.create_topic, topic)
        await trio.to_thread.run_sync(hanging.produce_many, topic, [message(f"new {n}") for n in range(NEW)])

        # Who is here gets a gap, and what is in the new cluster from its start.
        assert await gap_told(here, "room") == (OLD + 3, 0, "recreated")
        assert await here.texts(NEW) == [f"new {n}" for n in range(NEW)]
        # Nobody has subscribed to anything in the new cluster.
        for url in (server.url, other.url):
            with trio.fail_after(HANG_SECONDS):
                while (await http(url, "GET", "/ready")).status != 200 or await following(url, "bob") != ["global"]:  # noqa: ASYNC110
                    await trio.sleep(0.05)
        assert await metric(server.url, "clusters_replaced_total") == 1

        # What is written through the service goes to the new one.
        assert await subscribe_patiently(server.url, "bob", "room") == ["global", "room"]
        assert await send(server.url, "sent to the new one") == NEW
        assert await here.texts(1) == ["sent to the new one"]

        # A cursor of now is of the new cluster: here, elsewhere, and on an instance that starts now.
        async with open_v1(server.url, "cat", ("chat", "room")) as idle:
            of_the_new = (await idle.control("live"))["cursor"]
        assert parse(of_the_new).cluster != parse(of_the_old).cluster
        await trio.to_thread.run_sync(hanging.produce, topic, message("after it"))
        async with running(settings, check_leaks=False) as fresh:  # the others have their own threads
            for url in (server.url, other.url, fresh.url):
                async with open_v1(url, "cat", ("chat", "room"), cursor=of_the_new) as back:
                    assert (await back.control("hello"))["resume"] == "exact"
                    assert await back.texts(1) == ["after it"]
                async with open_v1(url, "cat", ("chat", "room"), cursor=of_the_old) as back:
                    assert (await back.control("hello"))["resume"] == "none"
                assert [one["text"] for one in (await page(url, of_the_new)).json()["messages"]] == ["after it"]
                refused = await page(url, of_the_old)
                assert (refused.status, refused.json()["field"]) == (400, "cursor")
