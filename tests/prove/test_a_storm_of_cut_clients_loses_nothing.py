"""Hundreds of clients are cut off again and again while messages come: each gets every message once, from any instance."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import trio

from tests.prove.scale import FULL, SEED, dice, percentile, scaled, tell
from tests.support.brokers import KafkaCluster
from tests.support.chats import Chats
from tests.support.checker import Journal, assert_nothing_wrong
from tests.support.resuming_client import Cut, ResumingClient, resuming
from tests.support.serving import spawned, until_ready
from tests.support.steady_producer import SteadyProducer, made, producing

SOCKETS = scaled(500)
CUTS = 20
PER_SECOND = 1000
STAY_SECONDS = 4.0 if FULL else 0.7  # on average, between two cuts
FROZEN_SECONDS = 1.0
REST_SECONDS = 30.0  # for what is left at the end; then the checker names what did not come
SMALL_BUFFER = 4096
CHATS = ("red", "green", "blue")
PARTITIONS = 3


async def storm(client: ResumingClient, urls: list[str], rng: random.Random, done: trio.Event, producer: SteadyProducer) -> None:
    """Stay a while, be cut off, and come back, until all the cuts were made; then get what is left."""
    for _ in range(CUTS):
        with trio.move_on_after(rng.expovariate(1 / STAY_SECONDS)):
            while not await client.read():
                await come(client, urls, rng)
        how = rng.choice([Cut.FIN, Cut.RESET, Cut.FREEZE, Cut.BLACK_HOLE])
        if how is Cut.FREEZE:
            await trio.sleep(rng.uniform(0, FROZEN_SECONDS))
        await client.cut(how)
        await come(client, urls, rng)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def end() -> None:
                await done.wait()
                scope.cancel()

            nursery.start_soon(end)
            await client.read()
    with trio.move_on_after(REST_SECONDS):
        await client.read(lambda: has_all(client, producer))


async def come(client: ResumingClient, urls: list[str], rng: random.Random) -> None:
    """Come to any instance, with the cursor at any place where it may stand."""
    await client.come_soon(lambda: rng.choice(urls), rng=rng, in_frame=rng.random() < 0.2, by_query=rng.random() < 0.2)


def has_all(client: ResumingClient, producer: SteadyProducer) -> bool:
    """Whether the last message of every partition has come."""
    return all(recorded.offsets and recorded.offsets[-1] + 1 >= producer.ends[lane] for lane, recorded in recorded_of(client))


def recorded_of(client: ResumingClient):
    return [(lane, client.journal.recorded[lane]) for lane in client.journal.owed]


@pytest.mark.deadline(400)
async def test_a_storm_of_cuts_loses_nothing_and_doubles_nothing(kafka: KafkaCluster, chats: Chats):
    rooms = [made(kafka, chats, chat, PARTITIONS) for chat in CHATS]
    settings = chats.settings_for(kafka)
    rng = dice("storm")
    clients = []
    for number in range(SOCKETS):
        room = rooms[number % len(rooms)]
        client = ResumingClient(
            Journal(f"client {number}"),
            f"user{number}",
            query=[("chat", room.chat)],
            receive_buffer=SMALL_BUFFER if number % 5 == 0 else None,
        )
        for lane in room.lanes:
            client.journal.owe(lane, 0)
        clients.append(client)
    producer = SteadyProducer(kafka, rooms, per_second=PER_SECOND)
    done = trio.Event()
    async with spawned(settings=settings) as first, spawned(settings=settings) as second:
        urls = [first.url, second.url]
        for server in (first, second):
            await until_ready(server)
        with resuming(clients):
            for client in clients:  # before anything is produced, so that all of it is owed
                await client.come(rng.choice(urls))
                await client.read_until(lambda c=client: c.visit.live is not None)
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for number, client in enumerate(clients):
                    nursery.start_soon(storm, client, urls, random.Random(f"{SEED} {number}"), done, producer)
                async with producing(producer):
                    while not all(len(client.visits) > CUTS for client in clients):  # noqa: ASYNC110 - clients tell nobody
                        await trio.sleep(0.1)
                done.set()
            seconds = trio.current_time() - began
    resumed = [visit for client in clients for visit in client.visits[1:] if visit.said_hello is not None]
    replays = [visit.first_message - visit.began for visit in resumed if visit.first_message is not None]
    outcomes = Counter(visit.resume for visit in resumed)
    tell(
        "storm",
        sockets=SOCKETS,
        cuts=SOCKETS * CUTS,
        seconds=seconds,
        produced=producer.acknowledged,
        per_second=producer.acknowledged / seconds,
        delivered=sum(len(recorded.offsets) for client in clients for _, recorded in recorded_of(client)),
        first_replayed_p50=percentile(replays, 0.5),
        first_replayed_p99=percentile(replays, 0.99),
        outcomes=dict(outcomes),
    )
    assert_nothing_wrong(producer.ledger, [client.journal for client in clients])
    assert set(outcomes) == {"exact"}
    assert percentile(replays, 0.99) < 30
