"""Clients that subscribe or name chats without end are told to retry later; other clients are not disturbed."""

from __future__ import annotations

import pytest
import trio

from tests.support.brokers import KafkaCluster
from tests.support.calls import metric, running, until
from tests.support.chats import Chats, message
from tests.support.clients import http, open_chat, receive_path, refusal
from tests.support.events_client import open_events
from tests.support.v1_client import open_v1

MOST = 100


@pytest.mark.promise("p-subscription-rate")
async def test_a_new_user_with_each_subscription_is_told_to_come_again(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    async with (
        running(chats.settings_for(kafka, limits__subscription_records_per_second=1)) as server,
        open_chat(server.url, "canary") as canary,
    ):
        topics = "&".join(f"topic=room{number}" for number in range(30))
        answers = [await http(server.url, "POST", f"/subscribing/user{number}?{topics}") for number in range(3)]
        assert [answer.status for answer in answers] == [200, 503, 503]
        assert "limits.subscription_records_per_second" in str(answers[-1].json())
        assert int(answers[-1].headers["retry-after"]) >= 1
        async with open_v1(server.url, "ann") as client:
            await client.control("live")
            error = await client.op(op="subscribe", chat="room")
            assert error["code"] == 503
        assert (await http(server.url, "GET", "/subscribing/user0")).status == 200
        assert (await http(server.url, "POST", "/subscribing/user0?topic=room1")).status == 200, "nothing has to be written for this"
        await trio.to_thread.run_sync(kafka.produce, chats.topic("global"), message("hello"))
        assert (await canary.next()).text == "hello"


@pytest.mark.promise("p-refused-503", "p-absent-chats")
async def test_names_of_chats_that_do_not_exist_are_bounded_and_a_new_chat_is_found(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    kafka.create_topic(chats.topic("there"))
    kafka.create_topic(chats.topic("yonder"))
    settings = chats.settings_for(kafka, limits__absent_chats=MOST)
    async with running(settings) as server, open_chat(server.url, "canary") as canary, trio.open_nursery() as nursery:

        async def name(user: str, first: int, count: int, *, task_status: trio.TaskStatus[None]) -> None:
            query = "&".join(f"chat=absent{number}" for number in range(first, first + count))
            async with open_chat(server.url, user, path=f"{receive_path(user)}?{query}") as client:
                task_status.started()
                await client.closed(seconds=600)

        left, users = MOST, 0
        while left:  # each takes its share
            await nursery.start(name, f"mallory{users}", MOST - left, (left + 1) // 2)
            left, users = left // 2, users + 1
        query = "chat=more"
        refused = await refusal(server.url, f"{receive_path('mallory')}?{query}")
        assert refused.status == 503
        assert "limits.absent_chats" in str(refused.json())
        assert (await http(server.url, "GET", f"{receive_path('mallory')}/events?{query}")).status == 503
        async with open_chat(server.url, "ann", path=f"{receive_path('ann')}?chat=there") as ann:
            await trio.to_thread.run_sync(kafka.produce, chats.topic("there"), message("there"))
            assert (await ann.next()).text == "there"
        query = "chat=there&chat=yonder"  # no client follows them now, and no absent chat may be named any more
        async with open_events(server.url, "ann", query) as events:
            assert (await events.next()).name == "hello"
        async with open_chat(server.url, "ann", path=f"{receive_path('ann')}?{query}") as ann:
            await trio.to_thread.run_sync(kafka.produce, chats.topic("yonder"), message("yonder"))
            assert (await ann.next()).text == "yonder"
        assert (await refusal(server.url, f"{receive_path('ann')}?{query}&chat=absent")).status == 503
        await trio.to_thread.run_sync(kafka.produce, chats.topic("global"), message("hello"))
        assert (await canary.next()).text == "hello"
        nursery.cancel_scope.cancel()


@pytest.mark.promise("p-absent-share")
async def test_one_client_leaves_others_absent_chats_to_name(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    async with running(chats.settings_for(kafka, limits__absent_chats=50)) as server:

        def path(user: str, count: int) -> str:
            return f"{receive_path(user)}?" + "&".join(f"chat={user}{number}" for number in range(count))

        refused = await refusal(server.url, path("mallory", 50))
        assert refused.status == 503
        assert "may name 25 chats" in str(refused.json())
        async with open_chat(server.url, "mallory", path=path("mallory", 25)), open_chat(server.url, "ann", path=path("ann", 13)):
            assert (await refusal(server.url, f"{receive_path('mallory')}?chat=more")).status == 503
            async with open_chat(server.url, "ben", path=path("ben", 1)):
                pass

        async def nobody_is_there() -> bool:
            return await metric(server.url, "sockets") == 0

        await until(nobody_is_there)
        async with open_chat(server.url, "mallory", path=f"{receive_path('mallory')}?chat=more"):
            pass
