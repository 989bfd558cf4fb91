"""History is asked for while messages come: between the past and the present nothing is missing, and nothing comes twice."""

from __future__ import annotations

import random

import pytest
import trio

from tests.prove.scale import SEED, scaled, tell
from tests.support.brokers import KafkaCluster
from tests.support.calls import running
from tests.support.chats import Chats
from tests.support.checker import Journal, assert_nothing_wrong
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
            trials = [trial_client(number, room) for number in range(first, min(first + TOGETHER, TRIALS))]
            done = trio.Event()
            with resuming(trials):
                async with trio.open_nursery() as nursery:
                    async with producing(producer):
                        await trio.sleep(0.5)
                        for client in trials:
                            nursery.start_soon(trial, client, server.url, producer, random.Random(f"{SEED} {client.user}"), done)
                        await trio.sleep(SPREAD_SECONDS + 0.5)
                    done.set()
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


def trial_client(number: int, room: Room) -> ResumingClient:
    client = ResumingClient(Journal(f"trial {number}"), f"user{number}", query=[("chat", room.chat), ("from", "earliest")])
    for lane in room.lanes:
        client.journal.owe(lane, 0)
    return client


async def trial(client: ResumingClient, url: str, producer: SteadyProducer, rng: random.Random, done: trio.Event) -> None:
    """Come at any time, and read until the last message of all."""
    await trio.sleep(rng.uniform(0, SPREAD_SECONDS))
    await client.come(url)
    lanes = list(client.journal.owed)

    def has_all() -> bool:
        ends = [(client.journal.recorded[lane].offsets, producer.ends[lane]) for lane in lanes]
        return done.is_set() and all(offsets and offsets[-1] + 1 >= end for offsets, end in ends)

    with trio.move_on_after(REST_SECONDS):
        await client.read(has_all)
