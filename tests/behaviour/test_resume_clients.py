"""What clients do all at once or repeatedly: restarts, half-open sockets, history while it grows, the same op five times."""

from __future__ import annotations

import random

import pytest
import trio

from tests.prove.scale import dice, scaled, tell
from tests.support.brokers import KafkaCluster
from tests.support.calls import following, metric, running, until
from tests.support.chats import Chats
from tests.support.deadlines import HANG_SECONDS
from tests.support.noted import Noted, noted, until_live
from tests.support.resuming_client import ResumingClient
from tests.support.resuming_visit import Cut, Meta
from tests.support.steady_producer import SteadyProducer, producing

RESTARTS = scaled(100)


@pytest.mark.deadline(200)
@pytest.mark.promise("p-cursor-everywhere", "p-restart-one-by-one")
async def test_a_client_that_reconnects_round_a_restart_again_and_again_loses_nothing(kafka: KafkaCluster, chats: Chats):
    settings = chats.settings_for(kafka, server__drain_seconds=0.5)
    rng = dice("restarts")
    async with noted(kafka, chats, partitions=2) as chat:
        early, late = (chat.client(user) for user in ("early", "late"))
        producer = SteadyProducer(kafka, [chat.room], per_second=200, ledger=chat.ledger)
        async with producing(producer):
            for _ in range(RESTARTS):
                async with running(settings, check_leaks=False) as server:
                    url = server.url
                    for client in (early, late):
                        await (client.come(url) if client.visits else come_from_the_earliest(client, url))
                    await late.read_until(lambda: late.visit.live is not None)
                    await early.read_until(lambda: early.visit.messages > 0)
                    if rng.random() < 0.5:
                        await early.cut(rng.choice(list(Cut)))  # gone before the restart; the other one is notified
                await late.read()
                assert (late.visit.close_code, late.visit.controls[-1].type) == (1012, "reconnect")
                await early.cut(Cut.RESET)
        async with running(settings, check_leaks=False) as server:
            for client in (early, late):
                await client.come(server.url)
            await chat.get_all(early, late)
        assert {visit.resume for client in (early, late) for visit in client.visits[1:]} == {"exact"}
        tell("restarts", restarts=RESTARTS, produced=producer.acknowledged)


async def come_from_the_earliest(client: ResumingClient, url: str) -> None:
    """Come for the first time."""
    query, client.query = client.query, [*client.query, ("from", "earliest")]
    await client.come(url)
    client.query = query


async def test_two_tabs_a_half_open_socket_and_a_new_one_each_get_everything(kafka: KafkaCluster, chats: Chats):
    settings = chats.settings_for(kafka, limits__ping_seconds=0.5, limits__pong_seconds=0.5)
    async with running(settings) as server, noted(kafka, chats) as chat:
        tab, half_open, new = (chat.client("ann") for _ in range(3))
        for client in (tab, half_open):
            await client.come(server.url)
            await until_live(client)
        await chat.produce(5)
        await chat.get_all(tab, half_open)
        place = half_open.place()
        await half_open.cut(Cut.BLACK_HOLE)
        await new.come(server.url, cursor=place)
        new.journal.owed.clear()
        new.journal.owe(chat.lanes[0], 5)
        await chat.produce(5)
        await chat.get_all(tab, new)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tab.read)  # pings are answered while it reads
            nursery.start_soon(new.read)
            with trio.fail_after(HANG_SECONDS):
                while await metric(server.url, "sessions") > 2:  # noqa: ASYNC110 - it tells nobody
                    await trio.sleep(0.05)
            await chat.produce(5)
            await until(lambda: chat.has_all(tab)() and chat.has_all(new)())
            nursery.cancel_scope.cancel()
        half_open.journal.owed.clear()
        half_open.journal.owe(chat.lanes[0], 0, 5)
        assert [len(client.visits) for client in (tab, new)] == [1, 1]


async def test_history_and_live_asked_at_once_by_many_have_no_seam(kafka: KafkaCluster, chats: Chats):
    ways = [("from", "earliest"), ("rewind", "1000"), ("from", "-7d"), ("from", "100000000000")]
    settings = chats.settings_for(kafka, memory__bytes=65_536)
    async with running(settings, check_leaks=False) as server, noted(kafka, chats) as chat:
        await chat.produce(500)
        producer = SteadyProducer(kafka, [chat.room], per_second=500, ledger=chat.ledger, first_number=1000)
        clients = [chat.client(f"user{number}", ways[number % len(ways)]) for number in range(20)]
        async with producing(producer), trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(come_and_be_live, client, server.url)
        await chat.get_all(*clients)
        assert all(client.visit.before_live >= 500 for client in clients)


async def come_and_be_live(client: ResumingClient, url: str) -> None:
    await client.come(url)
    await until_live(client)


async def test_the_same_subscription_five_times_at_once_delivers_once(kafka: KafkaCluster, chats: Chats):
    settings = chats.settings_for(kafka)
    async with running(settings, check_leaks=False) as first, running(settings, check_leaks=False) as second, noted(kafka, chats) as chat:
        await chat.produce(10)
        producer = SteadyProducer(kafka, [chat.room], per_second=500, ledger=chat.ledger, first_number=1000)
        clients = [chat.client("ann", owed=False, by_name=False) for _ in range(5)]
        for number, client in enumerate(clients):
            await client.come((first, second)[number % 2].url)
            await until_live(client)
        async with producing(producer):
            await wait_for(producer, 50)
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(subscribe_five_times, client, chat, producer)
            end = producer.acknowledged
            await wait_for(producer, end + 100)
        await chat.get_all(*clients)
        for server in (first, second):
            assert await following(server.url, "ann") == ["global", "room"]
        begins = {client.journal.recorded[chat.lanes[0]].offsets[0] for client in clients}
        assert len(begins) == 1, f"one subscription has one beginning, not {begins}"


def answers_of(client: ResumingClient) -> list[Meta]:
    """Return the answers to what it has asked on this visit."""
    return [control for control in client.visit.controls if control.type == "subscribed" and control.re is not None]


async def subscribe_five_times(client: ResumingClient, chat: Noted, producer: SteadyProducer) -> None:
    """Ask without waiting for the answers; owed is what is acknowledged from the first answer on, and all from where it began."""
    for number in range(5):
        await client.say({"op": "subscribe", "chat": "room", "re": number})
    await client.read_until(
        lambda: len(answers_of(client)) == 5  # between them may be the news of what another client's op did
    )
    answers = answers_of(client)
    assert [answer.re for answer in answers] == list(range(5))
    lane = chat.lanes[0]
    begin = answers[0].positions["0"]
    first = client.journal.recorded[lane].offsets[:1].tolist() or [begin]
    assert first[0] <= begin, "it was delivered only from where the answer says it is already, or before"
    assert first[0] <= producer.ends[lane]
    client.journal.owe(lane, first[0])


async def wait_for(producer: SteadyProducer, count: int) -> None:
    """Wait until this many are acknowledged."""
    await until(lambda: producer.acknowledged >= count)


@pytest.mark.promise("p-exact")
async def test_a_client_that_leaves_and_comes_between_any_two_messages_gets_each_once(kafka: KafkaCluster, chats: Chats):
    rng = random.Random(7)
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats) as chat:
        client = chat.client()
        await client.come(server.url)
        await until_live(client)
        for how in [*Cut, *Cut]:
            await chat.produce(rng.randint(0, 3))
            await client.cut(how)
            await chat.produce(rng.randint(0, 3))
            await client.come(server.url, in_frame=rng.random() < 0.5, by_query=rng.random() < 0.5)
        await chat.get_all(client)
