"""Subscriptions take effect on live sockets at once, on every instance, and stay."""

from __future__ import annotations

import pytest
import trio

from tests.support.brokers import Broker, KafkaCluster
from tests.support.calls import following, running, subscribe, unsubscribe, until
from tests.support.chats import Chats, message
from tests.support.clients import http, open_chat


@pytest.mark.promise("p-follows")
async def test_every_socket_of_the_user_follows_and_nobody_elses(broker: Broker, chats: Chats) -> None:
    for chat in ("global", "room1"):
        broker.create_topic(chats.topic(chat))
    settings = chats.settings_for(broker)
    async with (
        running(settings) as here,
        running(settings, check_leaks=False) as there,
        open_chat(here.url, "alice") as first,
        open_chat(here.url, "alice") as second,
        open_chat(there.url, "alice") as third,
        open_chat(here.url, "bob") as other,
    ):
        assert await subscribe(there.url, "alice", "room1") == ["global", "room1"]
        broker.produce(chats.topic("room1"), message("hello"))
        for client in (first, second, third):
            assert await client.texts(1) == ["hello"]
        broker.produce(chats.topic("global"), message("marker"))
        assert await other.texts(1) == ["marker"]


async def test_after_an_unsubscribe_nothing_of_that_chat_comes(broker: Broker, chats: Chats) -> None:
    for chat in ("global", "room1", "room2"):
        broker.create_topic(chats.topic(chat))
    async with running(chats.settings_for(broker)) as server, open_chat(server.url, "alice") as client:
        await subscribe(server.url, "alice", "room1", "room2")
        for wanted, left in [("room2", "room1"), ("global", "room2")]:
            # The second time without naming a chat: from all but the default ones.
            assert left not in await unsubscribe(server.url, "alice", *([left] if left == "room1" else []))
            broker.produce(chats.topic(left), message(f"unwanted in {left}"))
            broker.produce(chats.topic(wanted), message(f"wanted in {wanted}"))
            assert await client.texts(1) == [f"wanted in {wanted}"]
        await subscribe(server.url, "alice", "room1")
        broker.produce(chats.topic("room1"), message("wanted again"))
        assert await client.texts(1) == ["wanted again"]
        assert len(client.received) == 3


async def test_subscriptions_hold_after_a_restart(broker: Broker, chats: Chats) -> None:
    broker.create_topic(chats.topic("room1"))
    async with running(chats.settings_for(broker)) as before:
        await subscribe(before.url, "Zoë Ω", "room1", "room2", "room3")
        await unsubscribe(before.url, "Zoë Ω", "room2")
    async with running(chats.settings_for(broker)) as after:
        assert await following(after.url, "Zoë Ω") == ["global", "room1", "room3"]
        async with open_chat(after.url, "Zoë Ω") as client:
            broker.produce(chats.topic("room1"), message("after the restart"))
            assert await client.texts(1) == ["after the restart"]


@pytest.mark.promise("p-follows")
async def test_the_default_chats_are_everybodys_and_nobody_leaves_them(kafka: KafkaCluster, chats: Chats) -> None:
    topics = [chats.topic(chat) for chat in ("news", "global")]
    for topic in topics:
        kafka.create_topic(topic)
    settings = chats.settings_for(kafka, chats__default=("news", "global"))
    async with running(settings) as server, open_chat(server.url, "nobody knows me") as client:
        assert await following(server.url, "nobody knows me") == ["global", "news"]
        assert await subscribe(server.url, "nobody knows me", "global") == ["global", "news"]
        assert kafka.records(chats.subscriptions_topic) == []
        answer = await http(server.url, "DELETE", "/subscribing/nobody%20knows%20me?topic=room1&topic=news")
        assert answer.status == 409
        assert await unsubscribe(server.url, "nobody knows me") == ["global", "news"]
        for topic in topics:
            kafka.produce(topic, message(topic))
        assert {*await client.texts(2)} == {*topics}


@pytest.mark.parametrize("instances", [1, 2])
async def test_the_same_subscription_many_times_at_once_delivers_once(kafka: KafkaCluster, chats: Chats, instances: int) -> None:
    topic = chats.topic("room1")
    kafka.create_topic(topic)
    settings = chats.settings_for(kafka)
    async with running(settings) as here, running(settings, check_leaks=False) as there, open_chat(here.url, "alice") as client:
        answers: list[list[str]] = []

        async def ask(url: str) -> None:
            answers.append(await subscribe(url, "alice", "room1", topic))
            kafka.produce(topic, message(f"message {len(answers)}"))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, (here, there)[number % instances].url)
        assert answers == [["global", "room1"]] * 20
        assert await client.texts(20) == [f"message {number}" for number in range(1, 21)]
        kafka.produce(topic, message("last"))
        assert await client.texts(1) == ["last"]
        assert await following(there.url, "alice") == ["global", "room1"]


async def test_subscribing_in_turn_under_load_loses_nothing_and_doubles_nothing(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("room1")
    kafka.create_topic(topic)
    async with running(chats.settings_for(kafka)) as server, open_chat(server.url, "alice") as client:
        sent = 0
        ended = False

        async def send() -> None:
            nonlocal sent
            while not ended:
                sent += 1
                await trio.to_thread.run_sync(kafka.produce, topic, message(str(sent)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for _ in range(15):
                await subscribe(server.url, "alice", "room1")
                # What is sent from here on, up to the next request, has to come.
                wanted = {str(number) for number in range(sent + 1, sent + 6)}
                await until(lambda wanted=wanted: wanted <= {delivery.text for delivery in client.received})
                await unsubscribe(server.url, "alice", "room1")
            ended = True
        numbers = [int(delivery.text) for delivery in client.received]
        assert numbers == sorted(set(numbers))
