"""After a restart thousands reconnect within a second, each with its cursor: all are admitted, and none loses a message."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import trio

from tests.prove.scale import FULL, SEED, percentile, scaled, tell
from tests.support.brokers import KafkaCluster
from tests.support.chats import Chats
from tests.support.checker import Journal, assert_nothing_wrong
from tests.support.resuming_client import ResumingClient, resuming
from tests.support.serving import ChildServer, spawned, until_ready
from tests.support.steady_producer import Room, SteadyProducer, made, producing

SOCKETS = scaled(5000)
ROOMS = scaled(50)
MISSED = scaled(10_000)  # messages that are produced while nobody is there, over all rooms
PER_SECOND = 200
MEMORY_BYTES = 32 << 20
COME_SECONDS = 600.0  # ends a hang: so long a machine that is busy with other things may take for all of them
DRAIN_SECONDS = 60.0  # likewise, for clients to leave; the service ends as soon as they have


async def first_visits(client: ResumingClient, url: str, *, rng: random.Random, task_status: trio.TaskStatus[None]) -> None:
    """Be here until the service goes away."""
    await client.come_soon(lambda: url, rng=rng, seconds=COME_SECONDS)
    await client.read_until(lambda: client.visit.live is not None, seconds=COME_SECONDS)
    task_status.started()
    await client.read()


async def come_back(client: ResumingClient, url: str, producer: SteadyProducer, *, rng: random.Random) -> None:
    """Connect within a second, reconnect when told to, and read until the last message, for as long as any come."""
    await trio.sleep(rng.uniform(0, 1))
    while True:
        await client.come_soon(lambda: url, rng=rng, seconds=COME_SECONDS)
        if await client.read_rest(lambda: producer.is_last(client.journal)) or client.connected:
            return
        assert client.visit.close_code == 1013, f"closed with {client.visit.close_code} {client.visit.close_reason}"
        await trio.sleep(rng.uniform(0.5, 3))


def resident_bytes(server: ChildServer) -> int:
    """Return the memory that a process has now."""
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.deadline(1800 if FULL else 240)
async def test_thousands_come_back_within_a_second_and_none_loses_anything(kafka: KafkaCluster, chats: Chats):
    rooms = [made(kafka, chats, f"room{number}") for number in range(ROOMS)]
    limits = {"limits__connections": SOCKETS + 100, "limits__write_seconds": COME_SECONDS}
    settings = chats.settings_for(kafka, memory__bytes=MEMORY_BYTES, server__drain_seconds=DRAIN_SECONDS, **limits)
    producer = SteadyProducer(kafka, rooms, per_second=PER_SECOND)
    clients = [client_of(number, rooms[number % ROOMS]) for number in range(SOCKETS)]
    dice = [random.Random(f"{SEED} {client.user}") for client in clients]
    with resuming(clients):
        async with spawned(settings=settings) as server, trio.open_nursery() as nursery:
            await until_ready(server)
            for client, rng in zip(clients, dice, strict=True):
                await nursery.start(lambda c=client, r=rng, *, task_status: first_visits(c, server.url, rng=r, task_status=task_status))
            await trio.to_thread.run_sync(producer.some, ROOMS)
            server.terminate()
            await server.wait()
        closed = Counter((client.visit.close_code, client.visit.controls[-1].type) for client in clients)
        await trio.to_thread.run_sync(producer.some, MISSED)
        async with spawned(settings=settings) as server:
            await until_ready(server)
            before, most = resident_bytes(server), 0
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for client, rng in zip(clients, dice, strict=True):
                    nursery.start_soon(lambda c=client, r=rng: come_back(c, server.url, producer, rng=r))
                async with producing(producer):
                    while len(nursery.child_tasks) == SOCKETS and not all(
                        map(is_back, clients)
                    ):  # one that is done before has lost something
                        most = max(most, resident_bytes(server))
                        await trio.sleep(0.2)
                live_seconds = trio.current_time() - began
                await trio.to_thread.run_sync(producer.say_last)
            settled = resident_bytes(server)
            most = max(most, settled)
    bound = before + MEMORY_BYTES + 2_000_000 * settings.pages.readers + 30 * 1024 * SOCKETS
    lives = [client.visits[-1].live - began for client in clients if client.visits[-1].live is not None]
    tell(
        "thousands come back",
        sockets=SOCKETS,
        missed=MISSED + ROOMS,
        live_p50=percentile(lives, 0.5),
        live_p99=percentile(lives, 0.99),
        all_live_seconds=live_seconds,
        told_to_come_again=sum(len(client.visits) - 2 for client in clients),
        memory_before_mb=before >> 20,
        memory_most_mb=most >> 20,
        memory_settled_mb=settled >> 20,
        memory_bound_mb=bound >> 20,
        ended=dict(closed),
    )
    assert closed == {(1012, "reconnect"): SOCKETS}
    assert_nothing_wrong(producer.ledger, [client.journal for client in clients])
    assert {client.visit.resume for client in clients} == {"exact"}
    assert len(lives) == SOCKETS
    assert most <= bound


def is_back(client: ResumingClient) -> bool:
    """Whether a client has come a second time, and has all that was there then."""
    return client.visit.live is not None and len(client.visits) > 1


def client_of(number: int, room: Room) -> ResumingClient:
    client = ResumingClient(Journal(f"client {number}"), f"user{number}", query=[("chat", room.chat)])
    for lane in room.lanes:
        client.journal.owe(lane, 0)
    return client
