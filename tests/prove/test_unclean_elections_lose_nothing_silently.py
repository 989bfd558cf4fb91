"""Unclean elections under load: what each client has, minus what was reported as lost, is the final log.

In full only: an election takes ten seconds. One of them, with other lengths, is in `tests/faults`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from confluent_kafka import KafkaException

from tests.prove.scale import FULL, dice, tell
from tests.support import elections
from tests.support.brokers import KafkaCluster, kafka_cluster
from tests.support.calls import running
from tests.support.chats import Chats, message
from tests.support.deadlines import HANG_SECONDS
from tests.support.v1_client import Frame, open_v1

__test__ = FULL

ROUNDS = 6
CHATS, PARTITIONS = ("one", "two"), 2
VIEWERS = 8
INSTANCES = 2
UNSEEN_SECONDS = (5.0, 8.0)  # how long the follower is away before the leader is: it is missed after 3, and counts until then
SETTLED_SECONDS = 1.0  # between two rounds

Place = tuple[str, int, int]


class Viewer:
    """A client that comes, stays for a while, goes, and comes back to any instance.

    Attributes:
        known: what it has of the log, as it was told.
        truncated: how often it was told that a log lost its end.
    """

    def __init__(self, urls: Sequence[str], rng: random.Random) -> None:
        self.known: dict[Place, str] = {}
        self.truncated = 0
        self.news = trio.Event()
        self._urls = urls
        self._rng = rng
        self._cursor = ""

    async def run(self) -> None:
        """Be there again and again, until cancelled."""
        here = [("chat", chat) for chat in CHATS] + [("from", "earliest")]
        while True:
            async with open_v1(self._rng.choice(self._urls), "ann", *here, cursor=self._cursor) as client:
                with trio.move_on_after(self._rng.choice([0.3, 2.0, 15.0])):
                    while True:
                        self._take(await client.next(seconds=10 * HANG_SECONDS))
                        self._cursor = client.cursor
            await trio.sleep(self._rng.choice([0.0, 0.5, 6.0]))

    def _take(self, frame: Frame) -> None:
        meta: Any = frame["meta"]
        if meta.get("type") == "gap":
            assert meta["cause"] == "truncated", meta
            self.truncated += 1
            lost = (meta["chat"], meta["partition"])
            for place in [place for place in self.known if place[:2] == lost and place[2] >= meta["first_left"]]:
                del self.known[place]
        elif "text" in frame:
            place = (frame["chat"], meta["partition"], meta["offset"])
            assert place not in self.known, f"{frame} comes twice"
            self.known[place] = frame["text"]
        self.news.set()
        self.news = trio.Event()


class Load:
    """Writes to all partitions, now and then a few records.

    Attributes:
        refused: how often brokers refused or did not answer; such records may be there or not, the log tells.
    """

    def __init__(self, cluster: KafkaCluster, topics: Sequence[str], rng: random.Random) -> None:
        self.refused = 0
        self.written = 0
        self._writer = elections.Writer(cluster)
        self._topics = topics
        self._rng = rng

    async def run(self, topic: str, partition: int) -> None:
        """Write to one partition, until cancelled."""
        while True:
            values = [message(f"{topic}/{partition} {self.written + n}") for n in range(self._rng.randrange(1, 6))]
            self.written += len(values)
            try:
                await self._writer.write(topic, values, partition=partition)
            except (KafkaException, TimeoutError):
                self.refused += 1
            await trio.sleep(self._rng.choice([0.0, 0.05, 0.3]))


def log_of(cluster: KafkaCluster, chats: Chats) -> dict[Place, str]:
    """What is in Kafka."""
    return {
        (chat, record.partition, record.offset): json.loads(record.value or b"")["text"]
        for chat in CHATS
        for record in cluster.records(chats.topic(chat))
    }


async def elect_under_load(cluster: KafkaCluster, topics: Sequence[str], load: Load, rng: random.Random) -> None:
    """Have each of two nodes lose its leadership in turn, with what the other never got, while all partitions are written to."""
    async with trio.open_nursery() as writers:
        for topic in topics:
            for partition in range(PARTITIONS):
                writers.start_soon(load.run, topic, partition)
        for number in range(ROUNDS):
            leader, follower = (1, 2) if number % 2 == 0 else (2, 1)
            await trio.sleep(SETTLED_SECONDS)
            await trio.to_thread.run_sync(cluster.kill, follower)
            await trio.sleep(rng.uniform(*UNSEEN_SECONDS))
            await elections.elect(cluster, topics, leader, follower)
            await trio.sleep(SETTLED_SECONDS)
            await trio.to_thread.run_sync(cluster.mend)
        writers.cancel_scope.cancel()


@pytest.mark.deadline(900)
async def test_whoever_is_elected_clients_know_the_log_as_it_is(chats: Chats):
    rng = dice("unclean elections")
    with kafka_cluster(nodes=3, heap_mb=256) as cluster:
        topics = [chats.topic(chat) for chat in CHATS]
        for topic in topics:
            elections.create_topic(cluster, topic, 1, 2, partitions=PARTITIONS)
        settings = chats.settings_for(cluster)
        load = Load(cluster, topics, rng)
        async with AsyncExitStack() as stack:
            urls = [(await stack.enter_async_context(running(settings, check_leaks=False))).url for _ in range(INSTANCES)]
            viewers = [Viewer(urls, random.Random(rng.random())) for _ in range(VIEWERS)]
            async with trio.open_nursery() as nursery:
                for viewer in viewers:
                    nursery.start_soon(viewer.run)
                await elect_under_load(cluster, topics, load, rng)
                log = await trio.to_thread.run_sync(log_of, cluster, chats)
                with trio.move_on_after(2 * HANG_SECONDS):
                    for viewer in viewers:
                        while viewer.known != log:
                            await viewer.news.wait()
                wrong = [differences(viewer.known, log) for viewer in viewers if viewer.known != log]
                nursery.cancel_scope.cancel()
        assert not wrong, wrong
        told = sum(viewer.truncated for viewer in viewers)
        tell("unclean elections", elections=ROUNDS, written=load.written, left=len(log), refused=load.refused, told=told)
        assert told, "no election was unclean"


def differences(known: dict[Place, str], log: dict[Place, str]) -> str:
    missing = sorted(place for place in log if known.get(place) != log[place])
    surplus = sorted(place for place in known if place not in log)
    return f"missing or other {missing[:5]} of {len(missing)}, had and not told as lost {surplus[:5]} of {len(surplus)}"
