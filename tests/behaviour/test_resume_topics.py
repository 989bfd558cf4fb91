"""Topics are created, extended, deleted and recreated while clients are here or away: each client is notified, and gets the rest."""

from __future__ import annotations

import pytest
import trio

from tests.support.brokers import KafkaCluster
from tests.support.calls import metric, running, subscribe
from tests.support.chats import Chats
from tests.support.clients import open_chat, receive_path
from tests.support.noted import gaps, noted, until_live
from tests.support.resuming_visit import Cut
from tests.support.steady_producer import SteadyProducer, producing

OLD = 20
lengths = pytest.mark.parametrize("new", [5, 20, 60], ids=["shorter", "as_long", "longer"])


@lengths
@pytest.mark.promise("p-made-anew")
async def test_a_topic_made_anew_while_away_is_told_and_comes_from_its_start(kafka: KafkaCluster, chats: Chats, new: int):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats) as chat:
        client = chat.client()
        await client.come(server.url)
        await chat.produce(OLD)
        await chat.get_all(client)
        await client.cut(Cut.FIN)
        await chat.produce(3)  # which are gone with the topic
        await chat.recreate()
        await chat.produce(new)
        await client.come(server.url)
        await until_live(client)
        assert (client.visit.resume, gaps(client)) == ("gap", [("room", 0, OLD, 0, "recreated")])
        await chat.produce(2)
        await chat.get_all(client)


@lengths
@pytest.mark.promise("p-in-order-once")
async def test_a_topic_made_anew_while_connected_is_told_and_comes_from_its_start(kafka: KafkaCluster, chats: Chats, new: int):
    path = f"{receive_path('bob')}?chat=room"
    async with (
        running(chats.settings_for(kafka)) as server,
        noted(kafka, chats) as chat,
        open_chat(server.url, "bob", path=path) as bare,
    ):
        client = chat.client()
        await client.come(server.url)
        await chat.produce(OLD)
        await chat.get_all(client)
        await chat.recreate()
        await chat.produce(new)
        await client.read_until(lambda: bool(gaps(client)))
        assert gaps(client) == [("room", 0, OLD, 0, "recreated")]
        await chat.produce(2)
        await chat.get_all(client)
        whole = [f"{number} " for number in range(OLD + new + 2)]
        assert [delivery.text for delivery in await bare.take(len(whole))] == whole
        await client.cut(Cut.RESET)  # and the cursor is that of the new topic
        await chat.produce(2)
        await client.come(server.url)
        await until_live(client)
        assert (client.visit.resume, gaps(client)) == ("exact", [])
        await chat.get_all(client)


@pytest.mark.promise("p-made-anew", "p-cursor-of-ids")
async def test_a_topic_made_anew_is_told_to_a_client_that_knows_it_by_ids_of_messages_alone(kafka: KafkaCluster, chats: Chats):
    settings = chats.settings_for(kafka)
    async with running(settings) as server, running(settings, check_leaks=False) as other, noted(kafka, chats) as chat:
        client, told_elsewhere = chat.client(by_name=False), chat.client("bob", by_name=False)
        for one, user in ((client, "ann"), (told_elsewhere, "bob")):
            await one.come(server.url)
            await until_live(one)
            await subscribe(server.url, user, "room")  # no control frame with a cursor comes after it
        await chat.produce(OLD)
        await chat.get_all(client, told_elsewhere)
        for one in (client, told_elsewhere):
            await one.cut(Cut.FIN)
        await chat.produce(3)  # which are gone with the topic
        await chat.recreate()
        await chat.produce(2)
        for one, at in ((client, server), (told_elsewhere, other)):
            await one.come(at.url)
            await until_live(one)
            assert (one.visit.resume, gaps(one)) == ("gap", [("room", 0, OLD, 0, "recreated")])
        await chat.get_all(client, told_elsewhere)


async def test_a_topic_that_is_created_after_the_subscription_comes_from_its_start(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats, partitions=0) as chat:
        here, away = (chat.client(user, by_name=False) for user in ("ann", "bob"))
        for client in (here, away):
            await client.come(server.url)
            answer = await client.ask(op="subscribe", chat="room")
            assert (answer.type, answer.exists, answer.positions) == ("subscribed", False, {})
        await away.cut(Cut.FIN)
        await chat.create(2)
        for partition in range(2):
            await chat.produce(5, partition=partition)
        await chat.get_all(here)
        await away.come(server.url)
        await until_live(away)
        assert away.visit.resume == "exact"
        for partition in range(2):
            await chat.produce(1, partition=partition)
        await chat.get_all(here, away)


@pytest.mark.promise("p-chat-without-a-topic")
async def test_a_topic_that_is_created_while_its_only_follower_is_away_comes_from_its_start(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats, partitions=0) as chat:
        client = chat.client(by_name=False)
        await client.come(server.url)
        await until_live(client)
        await client.cut(Cut.FIN)
        await subscribe(server.url, "ann", "room")
        await chat.create(1)
        await chat.produce(5)
        await client.come(server.url)
        await chat.get_all(client)


@pytest.mark.deadline(90)
@pytest.mark.promise("p-partition-added")
async def test_partitions_grow_from_one_to_four_under_load_and_an_old_cursor_gets_them_all(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka), check_leaks=False) as server, noted(kafka, chats) as chat:
        here, away = (chat.client(user) for user in ("here", "away"))
        for client in (here, away):
            await client.come(server.url)
            await until_live(client)
        producer = SteadyProducer(kafka, [chat.room], per_second=300, ledger=chat.ledger)
        async with trio.open_nursery() as nursery:
            async with producing(producer):
                nursery.start_soon(here.read, lambda: producer.acknowledged < 0)
                await away.read_until(lambda: len(away.journal.recorded[chat.lanes[0]].offsets) > 100)
                await away.cut(Cut.RESET)
                for total in (2, 3, 4):
                    await chat.add_partitions(total)
                    producer.rooms = [chat.room]
                    await wait_for(producer, chat.lanes[-1])
                await away.come(server.url)
                await until_live(away)
                assert away.visit.resume == "exact"
            nursery.cancel_scope.cancel()
        await chat.get_all(here, away)


async def wait_for(producer: SteadyProducer, lane) -> None:
    """Wait until some messages are in a partition."""
    while producer.ends[lane] < 20:  # noqa: ASYNC110 - it tells nobody
        await trio.sleep(0.01)


async def test_two_clients_of_a_deleted_topic_wait_for_another_and_cost_nothing(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats) as chat:
        clients = [chat.client(user) for user in ("ann", "bob")]
        for client in clients:
            await client.come(server.url)
        await chat.produce(3)
        await chat.get_all(*clients)
        await trio.to_thread.run_sync(kafka.delete_topic, chat.topic)
        chat.ledger.deleted("room", chat.room.identity)
        for client in clients:
            await client.read_until(lambda c=client: bool(gaps(c)))
            assert gaps(client) == [("room", 0, 3, 0, "recreated")]
        assert await metric(server.url, "sessions") == 2
        await chat.create(1)
        await chat.produce(3)
        await chat.get_all(*clients)
