"""History is read while messages come: between history and live messages nothing is missing, and nothing comes twice."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import trio

from tests.prove.scale import SEED, scaled, tell
from tests.support.brokers import KafkaCluster
from tests.support.calls import running, until
from tests.support.chats import Chats
from tests.support.checker import Journal, assert_nothing_wrong
from tests.support.http_client import http
from tests.support.resuming_client import ResumingClient, resuming
from tests.support.steady_producer import Room, SteadyProducer, made, producing

TRIALS = scaled(200)
TOGETHER = 20
PER_SECOND = 1000
PARTITIONS = 3
SPREAD_SECONDS = 2.0
REST_SECONDS = 30.0


@pytest.mark.deadline(300)
async def test_from_the_earliest_on_nothing_is_missing_or_doubled_where_live_begins(kafka: KafkaCluster, chats: Chats):
    clients: list[ResumingClient] = []
    settings = chats.settings_for(kafka, memory__bytes=1 << 20)  # so that the past is read in pages
    async with running(settings, check_leaks=False) as server:  # the producers have threads, too
        for first in range(0, TRIALS, TOGETHER):
            room = made(kafka, chats, f"room{first}", PARTITIONS)
            producer = SteadyProducer(kafka, [room], per_second=PER_SECOND)
            trials = [trial_client(number, room, [("from", "earliest")]) for number in range(first, min(first + TOGETHER, TRIALS))]
            with resuming(trials):
                async with trio.open_nursery() as nursery:
                    async with producing(producer):
                        await until(lambda producer=producer: producer.acknowledged > PER_SECOND / 2)
                        for client in trials:
                            nursery.start_soon(trial, client, server.url, producer, random.Random(f"{SEED} {client.user}"))
                        await trio.sleep(SPREAD_SECONDS + 0.5)
                    await trio.to_thread.run_sync(producer.say_last)
            assert_nothing_wrong(producer.ledger, [client.journal for client in trials])
            clients += trials
    seams = [client.visit.before_live for client in clients]
    tell(
        "history and live",
        trials=len(clients),
        messages=sum(client.visit.messages for client in clients),
        before_live=f"{min(seams)} to {max(seams)}",
    )
    assert all(client.visit.live is not None for client in clients)


def trial_client(number: int, room: Room, query: Sequence[tuple[str, str]]) -> ResumingClient:
    client = ResumingClient(Journal(f"trial {number}"), f"user{number}", query=[("chat", room.chat), *query])
    for lane in room.lanes:
        client.journal.owe(lane, 0)
    return client


@pytest.mark.deadline(300)
async def test_from_pages_to_a_socket_nothing_is_missing_or_doubled(kafka: KafkaCluster, chats: Chats):
    settings = chats.settings_for(kafka, memory__bytes=1 << 20)
    messages = pages = 0
    async with running(settings, check_leaks=False) as server:
        for first in range(0, TRIALS, TOGETHER):
            room = made(kafka, chats, f"paged{first}", PARTITIONS)
            producer = SteadyProducer(kafka, [room], per_second=PER_SECOND)
            trials = [trial_client(number, room, ()) for number in range(first, min(first + TOGETHER, TRIALS))]
            read = dict.fromkeys((client.user for client in trials), 0)
            with resuming(trials):
                async with trio.open_nursery() as nursery:
                    async with producing(producer):
                        await until(lambda producer=producer: producer.acknowledged > PER_SECOND / 2)
                        for client in trials:
                            nursery.start_soon(paged_trial, client, server.url, producer, random.Random(f"{SEED} {client.user}"), read)
                        await trio.sleep(SPREAD_SECONDS + 0.5)
                    await trio.to_thread.run_sync(producer.say_last)
            assert_nothing_wrong(producer.ledger, [client.journal for client in trials])
            assert {client.visit.resume for client in trials} == {"exact"}
            messages += sum(client.visit.messages for client in trials)
            pages += sum(read.values())
    tell("pages, then live", trials=TRIALS, pages=pages, live_messages=messages)


async def paged_trial(client: ResumingClient, url: str, producer: SteadyProducer, rng: random.Random, read: dict[str, int]) -> None:
    """Read pages, as many as there are or fewer, and go on from there by a socket."""
    await trio.sleep(rng.uniform(0, SPREAD_SECONDS))
    (chat,) = {lane.chat for lane in client.journal.owed}
    cursor, most = None, rng.randint(1, 20)
    for _ in range(most):
        place = f"&cursor={cursor}" if cursor else ""
        answer = await http(url, "GET", f"/history/{chat}?limit={rng.randint(1, 500)}{place}")
        assert answer.status == 200, answer
        page = answer.json()
        assert page["gaps"] == []
        for shown in page["messages"]:
            client.take(shown)
        cursor = page["next"]
        read[client.user] += 1
        if page["end"]:
            break
    client.begin_at(cursor)
    await come_and_read(client, url, producer)


async def trial(client: ResumingClient, url: str, producer: SteadyProducer, rng: random.Random) -> None:
    """Come at any time, and read until the last message of all."""
    await trio.sleep(rng.uniform(0, SPREAD_SECONDS))
    await come_and_read(client, url, producer)


async def come_and_read(client: ResumingClient, url: str, producer: SteadyProducer) -> None:
    """Come, and read until the last message of all."""
    await client.come(url)
    with trio.move_on_after(REST_SECONDS):
        await client.read(lambda: client.visit.live is not None and producer.is_last(client.journal))
