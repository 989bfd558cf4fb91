"""Hundreds of clients are disconnected again and again while messages come: each gets every message once, from any instance."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
import trio

from tests.prove.scale import FULL, SEED, dice, percentile, scaled, tell
from tests.support.brokers import KafkaCluster
from tests.support.chats import Chats
from tests.support.checker import Journal, assert_nothing_wrong
from tests.support.resuming_client import PACED_BYTES, QUIET_SECONDS, ResumingClient, resuming
from tests.support.resuming_visit import Cut
from tests.support.serving import spawned, until_ready
from tests.support.steady_producer import SteadyProducer, made, producing

SOCKETS = scaled(500)
CUTS = 20
PER_SECOND = 1000
BEHIND = 200  # messages that clients which are not slow may be behind, on average; then no more are produced until they are not
STAY_SECONDS = 4.0 if FULL else 0.7  # on average, between two cuts
FROZEN_SECONDS = 1.0
COME_SECONDS = 300.0  # ends a hang: all of them together are given no more than they take
CHATS = ("red", "green", "blue")
PARTITIONS = 3
SLOW_EVERY = 5  # one client of this many is slow during the storm: it takes
SLOW_PER_SECOND = PER_SECOND / len(CHATS) / 4  # of what comes to it
SLOW_BUFFER = 65_536  # bytes in its kernel, so that the service's are filled: twice loopback's MSS, below which the kernel sets the rate
LEAST_PER_SECOND = 1_000  # that all clients together take of what is left when the storm is over; a hundredth of what they do on two cores


@dataclass
class Storm:
    """What all of its clients share.

    Attributes:
        urls: the instances.
        producer: of all that they are owed.
        over: set once all cuts were made and all is produced.
        rest_until: when clients without the rest are late; trio's time.
    """

    urls: list[str]
    producer: SteadyProducer
    over: trio.Event = field(default_factory=trio.Event)
    rest_until: float = 0.0

    async def weather(self, client: ResumingClient, rng: random.Random) -> None:
        """Stay a while, be cut off, and come back, until all the cuts were made; then get what is left."""
        for _ in range(CUTS):
            with trio.move_on_after(rng.expovariate(1 / STAY_SECONDS)):
                await self.read(client, rng)
            how = rng.choice([Cut.FIN, Cut.RESET, Cut.FREEZE, Cut.BLACK_HOLE])
            if how is Cut.FREEZE:
                await trio.sleep(rng.uniform(0, FROZEN_SECONDS))
            await client.cut(how)
            await self.come(client, rng)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.read, client, rng)
            await self.over.wait()
            nursery.cancel_scope.cancel()
        client.pace = None
        with trio.move_on_at(self.rest_until) as rest:
            while not await client.read_rest(lambda: self.left_of(client) == 0) and not client.connected:
                await self.come(client, rng)
        client.journal.stopped_early = rest.cancelled_caught

    async def read(self, client: ResumingClient, rng: random.Random) -> None:
        """Read without end, reconnecting after each disconnect."""
        while not await client.read():
            await self.come(client, rng)

    async def come(self, client: ResumingClient, rng: random.Random) -> None:
        """Come to any instance, with the cursor at any place where it may stand."""
        in_frame, by_query = rng.random() < 0.2, rng.random() < 0.2
        await client.come_soon(lambda: rng.choice(self.urls), rng=rng, seconds=COME_SECONDS, in_frame=in_frame, by_query=by_query)

    def left_of(self, client: ResumingClient) -> int:
        """Return how many offsets a client has still to come past."""
        came = [(lane, client.journal.recorded[lane].offsets) for lane in client.journal.owed]
        return sum(self.producer.ends[lane] - (offsets[-1] + 1 if offsets else 0) for lane, offsets in came)


def taken_by(client: ResumingClient) -> int:
    """Return how many messages a client has recorded."""
    return sum(len(client.journal.recorded[lane].offsets) for lane in client.journal.owed)


@pytest.mark.deadline(1800 if FULL else 400)
async def test_a_storm_of_cuts_loses_nothing_and_doubles_nothing(kafka: KafkaCluster, chats: Chats):
    rooms = [made(kafka, chats, chat, PARTITIONS) for chat in CHATS]
    settings = chats.settings_for(kafka)
    rng = dice("storm")
    fast, slow = [], []
    for number in range(SOCKETS):
        room = rooms[number % len(rooms)]
        query = [("chat", room.chat)]
        if number % SLOW_EVERY:
            fast.append(ResumingClient(Journal(f"client {number}"), f"user{number}", query=query))
        else:
            journal = Journal(f"slow client {number}")
            slow.append(ResumingClient(journal, f"user{number}", query=query, receive_buffer=SLOW_BUFFER, pace=SLOW_PER_SECOND))
        for lane in room.lanes:
            (fast if number % SLOW_EVERY else slow)[-1].journal.owe(lane, 0)
    clients = [*fast, *slow]
    producer = SteadyProducer(kafka, rooms, per_second=PER_SECOND)
    async with spawned(settings=settings) as first, spawned(settings=settings) as second:
        storm = Storm([first.url, second.url], producer)
        for server in (first, second):
            await until_ready(server)
        with resuming(clients):
            for client in clients:  # before anything is produced, so that all of it is owed
                await client.come(rng.choice(storm.urls))
                await client.read_until(lambda c=client: c.visit.live is not None)
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for number, client in enumerate(clients):
                    nursery.start_soon(storm.weather, client, random.Random(f"{SEED} {number}"))
                async with producing(producer):
                    while not all(len(client.visits) > CUTS for client in clients):
                        await trio.sleep(0.1)
                        producer.held = sum(map(storm.left_of, fast)) > BEHIND * len(fast)
                seconds = trio.current_time() - began
                slow_took, slow_left = [taken_by(client) for client in slow], sum(map(storm.left_of, slow))
                left = sum(map(storm.left_of, clients))
                storm.rest_until = trio.current_time() + QUIET_SECONDS + left / LEAST_PER_SECOND
                storm.over.set()
            rest_seconds = trio.current_time() - began - seconds
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
        delivered=sum(map(taken_by, clients)),
        left=left,
        left_to_the_slow=slow_left,
        most_that_a_slow_one_took=max(slow_took),
        rest_seconds=rest_seconds,
        first_replayed_p50=percentile(replays, 0.5),
        first_replayed_p99=percentile(replays, 0.99),
        outcomes=dict(outcomes),
    )
    assert_nothing_wrong(producer.ledger, [client.journal for client in clients])
    assert set(outcomes) == {"exact"}
    assert slow_left > 0 or producer.acknowledged < PER_SECOND * seconds / 2  # they were slow, unless the machine was slower
    assert max(slow_took) <= SLOW_PER_SECOND * seconds + PACED_BYTES
