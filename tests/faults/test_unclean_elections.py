"""An unclean election rewrites the end of a log: live and resuming clients and page readers are notified, and get the new records."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from tests.support import elections
from tests.support.brokers import KafkaCluster
from tests.support.calls import following, running, subscribe, subscribe_patiently
from tests.support.chats import Chats, message
from tests.support.clients import http
from tests.support.deadlines import HANG_SECONDS
from tests.support.v1_client import V1Client, open_v1

pytestmark = pytest.mark.deadline(240)

LEADER, FOLLOWER = 1, 2  # the third node keeps the controllers' majority
KEPT, LOST = 100, 20
WRITTEN = {"empty": 0, "shorter": 5, "equal": 20, "longer": 50}  # by chat: how many others are written then
RANGE = (KEPT + LOST, KEPT, "truncated")


def gaps_of(client: V1Client) -> dict[str, list[tuple[int, int, str]]]:
    """Chat -> the gaps that were told."""
    told: dict[str, list[tuple[int, int, str]]] = {}
    for frame in client.frames:
        meta = frame["meta"]
        if meta.get("type") == "gap":
            told.setdefault(meta["chat"], []).append((meta["first_lost"], meta["first_left"], meta["cause"]))
    return told


def texts_of(client: V1Client, chat: str) -> list[str]:
    return [frame["text"] for frame in client.frames if frame.get("chat") == chat and "text" in frame]


async def read_until(client: V1Client, wanted: dict[str, list[str]]) -> None:
    """Take what comes until these texts of each chat are there, at the end of what came."""
    while any(texts_of(client, chat)[-len(texts) :] != texts for chat, texts in wanted.items() if texts):
        await client.next()


async def page(url: str, chat: str, **query: str) -> Any:
    return (await http(url, "GET", f"/history/{chat}?{urlencode(query)}")).json()


@pytest.mark.promise("p-epochs", "p-subscriptions-lost")
async def test_after_an_unclean_election_each_record_is_delivered_or_told(three_brokers: KafkaCluster, chats: Chats):
    cluster, writer = three_brokers, elections.Writer(three_brokers)
    topics = {chat: chats.topic(chat) for chat in WRITTEN}
    for topic in topics.values():
        elections.create_topic(cluster, topic, LEADER, FOLLOWER)
    elections.create_topic(cluster, chats.subscriptions_topic, LEADER, FOLLOWER, cleanup_policy="compact")
    here = [("chat", chat) for chat in WRITTEN]
    new = {chat: [f"new {n}" for n in range(count)] for chat, count in WRITTEN.items()}
    settings = chats.settings_for(cluster)
    async with running(settings) as server, running(settings) as fresh, open_v1(server.url, "ann", *here) as live:
        await live.control("live")
        for topic in topics.values():
            await writer.write(topic, [message(f"old {n}") for n in range(KEPT)])
        await read_until(live, {chat: [f"old {n}" for n in range(KEPT)] for chat in WRITTEN})
        at_the_cut = live.cursor  # exactly where the logs are going to end: nothing before it is lost
        pages_at_the_cut = {chat: (await page(server.url, chat, limit="1000"))["next"] for chat in WRITTEN}
        assert await subscribe(server.url, "dan", "kept") == ["global", "kept"]
        await trio.to_thread.run_sync(cluster.kill, FOLLOWER)
        assert await subscribe_patiently(server.url, "dan", "lost") == ["global", "kept", "lost"]
        for topic in topics.values():
            await writer.write(topic, [message(f"lost {n}") for n in range(LOST)])
        await read_until(live, {chat: [f"lost {n}" for n in range(LOST)] for chat in WRITTEN})
        by_ids = live.cursor
        assert by_ids.count(".") == len(WRITTEN)
        async with open_v1(server.url, "bob", *here) as idle:  # it has read nothing, its place is the end
            by_head = (await idle.control("live"))["cursor"]
        pages = {chat: (await page(server.url, chat, limit="1000"))["next"] for chat in WRITTEN}
        had = len(live.frames)
        async with open_v1(fresh.url, "cat", *here) as waiting:  # on an instance that has read nothing of it
            await waiting.control("live")

            await elections.elect(cluster, [*topics.values(), chats.subscriptions_topic], LEADER, FOLLOWER)
            for chat, topic in topics.items():
                await writer.write(topic, [message(text) for text in new[chat]])

            # Who is there
            for client, before in ((live, had), (waiting, 2)):
                await read_until(client, new)
                while gaps_of(client).keys() != WRITTEN.keys():
                    await client.next()
                assert gaps_of(client) == {chat: [RANGE] for chat in WRITTEN}
                for chat in WRITTEN:
                    in_order = [frame for frame in client.frames[before:] if (frame.get("chat") or frame["meta"].get("chat")) == chat]
                    assert in_order[0]["meta"].get("type") == "gap", "it is told before what follows it"
                    assert [frame["text"] for frame in in_order[1:]] == new[chat]

        # Who follows what is what the topic says now, on every instance
        for url in (server.url, fresh.url):
            with trio.fail_after(HANG_SECONDS):
                while await following(url, "dan") != ["global", "kept"]:  # noqa: ASYNC110 - nobody is told
                    await trio.sleep(0.1)
        assert await subscribe_patiently(fresh.url, "dan", "lost") == ["global", "kept", "lost"]

        # Who comes back, to this instance or to another one
        async with running(settings) as other:
            for url in (server.url, other.url):
                for cursor in (by_ids, by_head):
                    async with open_v1(url, "bob", *here, cursor=cursor) as back:
                        # Brokers have two seconds to answer until it is said, one of them is dead, and the machine may be busy.
                        assert (await back.control("hello"))["resume"] in ("future", "exact")
                        await back.control("live")
                        assert gaps_of(back) == {chat: [RANGE] for chat in WRITTEN}
                        assert {chat: texts_of(back, chat) for chat in WRITTEN} == new
                async with open_v1(url, "bob", *here, cursor=back.cursor) as again:
                    assert (await again.control("hello"))["resume"] == "exact"
                    await again.control("live")
                    assert [frame for frame in again.frames if "text" in frame] == []

                async with open_v1(url, "bob", *here, cursor=at_the_cut) as back:
                    assert (await back.control("hello"))["resume"] == "exact"
                    await back.control("live")
                    assert (gaps_of(back), {chat: texts_of(back, chat) for chat in WRITTEN}) == ({}, new)

                # Who reads pages
                for chat, cursor in pages_at_the_cut.items():
                    found = await page(url, chat, cursor=cursor)
                    assert (found["gaps"], [one["text"] for one in found["messages"]]) == ([], new[chat])
                for chat, cursor in pages.items():
                    found = await page(url, chat, cursor=cursor)
                    assert [(gap["first_lost"], gap["first_left"], gap["cause"]) for gap in found["gaps"]] == [RANGE]
                    assert [one["text"] for one in found["messages"]] == new[chat]
                    after = await page(url, chat, cursor=found["next"])
                    assert (after["messages"], after["gaps"], after["end"]) == ([], [], True)
