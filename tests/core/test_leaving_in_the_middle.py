"""A follower that leaves a log, or returns to it, during a delivery gets its messages once."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.log.fan_out import OFFERS_A_LOOK
from kafka_chat.loop_sharing import TURN_SECONDS
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core

ROOM = "kafka.chat.room"
CLIENTS = 5 * OFFERS_A_LOOK


class SlowToOffer(FakeClient):
    """A socket that takes so long that the walk lets others have their turn."""

    def offer(self, frames: bytes) -> bool:
        time.sleep(1.5 * TURN_SECONDS)
        return super().offer(frames)


async def change(core: Core, *, subscribed: bool) -> None:
    topic_id = core.kafka.topics[ROOM].topic_id
    starts = {0: 0} if subscribed else {}
    told = SubscriptionChange(username="last", chat="room", subscribed=subscribed, topic_id=topic_id, starts=starts)
    await core.audience.user_changed(told)


@pytest.mark.parametrize("again", [False, True], ids=["leaves", "leaves and comes again"])
async def test_who_unsubscribes_during_a_walk(autojump_clock, again):
    async with open_core() as core, trio.open_nursery() as nursery:

        async def stay(client: FakeClient, user: str, *, task_status: trio.TaskStatus[None]) -> None:
            async with core.connected(client, user):
                task_status.started()
                await trio.sleep_forever()

        core.kafka.create(ROOM)
        clients = [SlowToOffer() if number % OFFERS_A_LOOK == 0 else FakeClient() for number in range(CLIENTS)]
        for number, client in enumerate(clients):
            user = "last" if number == CLIENTS - 1 else f"user{number}"
            core.chats[user] = {"room"}
            await nursery.start(stay, client, user)
        await wait_all_tasks_blocked()
        core.kafka.produce(ROOM, value("hello"))
        for _ in range(100):  # turns of the loop; the walk begins in one of the first
            if clients[0].got:
                break
            await trio.lowlevel.checkpoint()
        assert not clients[-1].got, "the walk is over already"
        await change(core, subscribed=False)
        if again:
            await change(core, subscribed=True)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [client.texts for client in clients] == [*[["hello"]] * (CLIENTS - 1), ["hello"] if again else []]


async def test_who_unsubscribes_while_its_page_lies_ready(autojump_clock):
    async with open_core(memory_bytes=65_536) as core:
        core.chats["last"] = {"another", "room"}
        client = FakeClient(room=0)
        for topic in ("kafka.chat.another", ROOM):
            core.kafka.create(topic)
        async with core.connected(client, "last"):
            core.kafka.produce("kafka.chat.another", value("first"))
            await wait_all_tasks_blocked()
            for number in range(200):
                for topic in ("kafka.chat.another", ROOM):
                    core.kafka.produce(topic, value(f"{number} {'x' * 1000}"))
                await wait_all_tasks_blocked()
            # Room for the first; then both pages are read, and what is sent of the first of them gets stuck.
            client.make_room(client.owed + 1)
            await wait_all_tasks_blocked()
            await change(core, subscribed=False)
            await change(core, subscribed=True)
            client.make_room(float("inf"))
            await wait_all_tasks_blocked()
        for chat in ("another", "room"):
            texts = [d["text"] for d in client.deliveries if d["chat"] == chat and d["text"] != "first"]
            assert [int(str(text).split()[0]) for text in texts] == list(range(200)), chat


async def test_who_unsubscribes_while_its_beginning_is_looked_up(autojump_clock):
    async with open_core() as core:
        core.chats["last"] = core.chats["other"] = {"room"}
        core.kafka.create(ROOM)
        core.kafka.away = True
        client = FakeClient()
        async with core.connected(client, "last"), core.connected(FakeClient(), "other"):
            core.kafka.back()  # the topic is opened; the offset of ten seconds ago is asked for
            await change(core, subscribed=False)
            await change(core, subscribed=True)
            await trio.sleep(2)
            core.kafka.produce(ROOM, value("hello"))
            await wait_all_tasks_blocked()
        assert client.texts == ["hello"]


async def test_nobody_is_unsubscribed_from_what_everybody_follows(autojump_clock):
    async with open_core() as core:
        core.kafka.create("kafka.chat.global")
        core.audience.pin("kafka.chat.global")
        client = FakeClient()
        async with core.connected(client):
            # As another instance writes it that has other defaults, or wrote it before they were changed.
            await core.audience.user_changed(SubscriptionChange(username="ann", chat="global", subscribed=False, starts={}))
            core.kafka.produce("kafka.chat.global", value("hello"))
            await wait_all_tasks_blocked()
        assert client.texts == ["hello"]
