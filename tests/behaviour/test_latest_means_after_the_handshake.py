"""A message acknowledged after the handshake or a subscription is answered is delivered, on every instance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from tests.support.brokers import Broker, KafkaCluster
from tests.support.calls import meanwhile, running, subscribe, unsubscribe, until
from tests.support.chats import Chats, message
from tests.support.clients import ChatClient, open_chat
from tests.support.serving import Server

TRIALS = 50


@asynccontextmanager
async def two_instances(broker: Broker, chats: Chats) -> AsyncIterator[tuple[Server, Server]]:
    settings = chats.settings_for(broker)
    async with running(settings) as here, running(settings, check_leaks=False) as there:
        yield here, there


async def produce(broker: Broker, topic: str, text: str) -> None:
    """Put a message there from another thread, so that the service works on meanwhile; returns once it is acknowledged."""
    await trio.to_thread.run_sync(partial(broker.produce, topic, message(text)))


@pytest.mark.parametrize("chat", ["global", "room1"])
@pytest.mark.promise("p-latest")
async def test_what_is_acknowledged_after_the_handshake_is_delivered_on_both_instances(broker: Broker, chats: Chats, chat: str) -> None:
    topic = chats.topic(chat)
    broker.create_topic(topic)
    async with two_instances(broker, chats) as (here, there):
        await subscribe(here.url, "alice", "room1")

        async def noise() -> None:
            await produce(broker, topic, "noise")

        async with meanwhile(noise):
            for trial in range(TRIALS):
                # Nobody else follows room1, so it is opened again for each of them.
                async with open_chat(here.url, "alice") as on_this, open_chat(there.url, "alice") as on_that:
                    await produce(broker, topic, f"trial {trial}")
                    for client in (on_this, on_that):
                        await client.take_until(f"trial {trial}")


async def test_what_is_acknowledged_at_once_in_the_same_thread_is_delivered(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("room1")
    broker.create_topic(topic)
    async with running(chats.settings_for(broker)) as server:
        await subscribe(server.url, "alice", "room1")
        for trial in range(TRIALS):
            async with open_chat(server.url, "alice") as client:
                broker.produce(topic, message(f"trial {trial}"))  # the service can do nothing between its answer and this
                assert (await client.next()).text == f"trial {trial}"


@pytest.mark.promise("p-not-before")
async def test_what_was_acknowledged_before_the_connect_is_not_delivered(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("room1")
    broker.create_topic(topic)
    async with running(chats.settings_for(broker)) as server:
        await subscribe(server.url, "alice", "room1")
        broker.produce(topic, message("before"), partition=0)
        async with open_chat(server.url, "alice") as client:
            broker.produce(topic, message("after"), partition=0)
            assert await client.texts(1) == ["after"]


async def test_what_is_acknowledged_after_a_subscription_is_answered_is_delivered_on_both_instances(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("room1")
    broker.create_topic(topic)
    async with (
        two_instances(broker, chats) as (here, there),
        open_chat(here.url, "alice") as on_this,
        open_chat(there.url, "alice") as on_that,
    ):
        for trial in range(TRIALS):
            await subscribe(here.url, "alice", "room1")
            broker.produce(topic, message(f"trial {trial}"))
            for client in (on_this, on_that):
                await client.take_until(f"trial {trial}")
            await unsubscribe(here.url, "alice", "room1")
            broker.produce(topic, message(f"between {trial}"))
        assert [delivery.text for delivery in on_this.received] == [f"trial {trial}" for trial in range(TRIALS)]


@pytest.mark.deadline(90)
@pytest.mark.promise("p-latest")
async def test_a_storm_of_connects_misses_nothing(broker: Broker, chats: Chats) -> None:
    topics = [chats.topic("global"), chats.topic("room1")]
    for topic in topics:
        broker.create_topic(topic)
    sent: list[str] = []
    clients: list[tuple[ChatClient, int]] = []
    all_sent = trio.Event()

    async def come(server: Server, number: int) -> None:
        async with open_chat(server.url, f"user{number % 5}") as client:
            clients.append((client, len(sent)))  # what is sent from here on is sent after the handshake
            sent.append(f"message {number}")
            await produce(broker, topics[number % 2], f"message {number}")
            if len(clients) == 100:
                all_sent.set()
            await all_sent.wait()
            # The last ones may still be on their way to the broker.
            await until(lambda: set(sent[since_of(client) :]) <= {delivery.text for delivery in client.received})
            assert len(client.received) == len(set(client.received)), "something came twice"

    def since_of(client: ChatClient) -> int:
        return next(since for other, since in clients if other is client)

    async with two_instances(broker, chats) as servers:
        for user in range(5):
            await subscribe(servers[0].url, f"user{user}", "room1")
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(come, servers[number // 2 % 2], number)


async def test_a_message_committed_after_the_handshake_is_delivered_though_written_before(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("global")
    kafka.create_topic(topic)
    transaction = await trio.to_thread.run_sync(kafka.transaction)
    async with running(chats.settings_for(kafka)) as server:
        transaction.produce(topic, message("written before, committed after"))
        async with open_chat(server.url, "alice") as client:
            await trio.to_thread.run_sync(transaction.commit)
            assert await client.texts(1) == ["written before, committed after"]
