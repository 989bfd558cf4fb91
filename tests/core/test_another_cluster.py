"""When another cluster replaces the earlier one, its mark is known before anything of it, and nothing of the earlier one stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from kafka_chat.chat.names import ChatNames
from kafka_chat.chat.resume_cursor import cluster_mark
from kafka_chat.errors import BrokerUnreachable
from kafka_chat.kafka.cluster import LOOK_SECONDS, Cluster
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.tail import WATCH_SECONDS, KafkaTail
from kafka_chat.settings.model import KafkaSettings, Limits
from kafka_chat.telemetry.metrics import Telemetry
from tests.support.fake_topics import PREFIX, FakeKafka
from tests.support.tails import Event, Gone, Opened, Told

HERE, THERE = cluster_mark("here"), cluster_mark("there")
ROOM = PREFIX + "room"


@asynccontextmanager
async def tail_on(kafka: FakeKafka, cluster: Cluster, told: Told) -> AsyncIterator[KafkaTail]:
    """A Tail whose tasks run, without its threads."""
    tail = KafkaTail(
        ClientConfig(KafkaSettings(bootstrap_servers="nowhere:1")),
        listener=told,
        lookup=kafka,  # type: ignore[arg-type]
        cluster=cluster,
        names=ChatNames(PREFIX),
        limits=Limits(),
        telemetry=Telemetry(),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tail.run_requests)
        nursery.start_soon(tail.run_watch)
        yield tail
        nursery.cancel_scope.cancel()


async def test_the_mark_is_that_of_the_cluster_that_answers(autojump_clock: trio.abc.Clock):
    kafka = FakeKafka()
    cluster, told = Cluster(kafka, Telemetry()), []  # type: ignore[arg-type]
    cluster.on_replaced.append(lambda: told.append(cluster.mark))
    assert cluster.mark is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.run)
        await trio.sleep(LOOK_SECONDS / 2)
        assert (cluster.mark, told) == (HERE, [])
        kafka.away = True
        await trio.sleep(5 * LOOK_SECONDS)
        assert cluster.mark == HERE
        kafka.away, kafka.cluster = False, "there"
        await trio.sleep(2 * LOOK_SECONDS)
        assert (cluster.mark, told, cluster.replaced) == (THERE, [THERE], 1)
        nursery.cancel_scope.cancel()


async def test_a_cursor_of_another_cluster_has_the_brokers_asked_whether_they_are_that_one():
    kafka = FakeKafka()
    cluster = Cluster(kafka, Telemetry())  # type: ignore[arg-type]
    assert await cluster.may_be(THERE), "nobody knows"
    await cluster.look()
    asked = len(kafka.questions)
    assert await cluster.may_be(HERE)
    assert await cluster.may_be(None)
    assert len(kafka.questions) == asked
    assert not await cluster.may_be(THERE)
    kafka.cluster = "there"
    assert await cluster.may_be(HERE), "it is not asked for what it is known to be"
    assert await cluster.may_be(THERE)
    assert not await cluster.may_be(HERE)
    kafka.away = True
    with pytest.raises(BrokerUnreachable):
        await cluster.may_be(HERE)


async def test_many_cursors_of_other_clusters_share_questions(autojump_clock: trio.abc.Clock):
    kafka = FakeKafka()
    cluster = Cluster(kafka, Telemetry())  # type: ignore[arg-type]
    await cluster.look()
    kafka.round_trip_seconds = 0.2
    asked = len(kafka.questions)
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(cluster.may_be, THERE)
    assert len(kafka.questions) - asked <= 2


@pytest.mark.parametrize("same_id", [False, True], ids=["another_topic", "a_topic_without_an_id"])
async def test_when_the_cluster_is_replaced_each_topic_is_lost_and_begins_at_its_start(autojump_clock: trio.abc.Clock, *, same_id: bool):
    kafka, told = FakeKafka(), Told()
    cluster = Cluster(kafka, Telemetry())  # type: ignore[arg-type]
    marks: list[bytes | None] = []

    def note(event: Event) -> None:
        marks.append(cluster.mark)

    told.during = note
    kafka.create(ROOM)
    kafka.produce(ROOM, *[b"1"] * 5)
    first = kafka.topics[ROOM].topic_id
    async with tail_on(kafka, cluster, told) as tail:
        tail.follow(ROOM)
        await told.opened(ROOM)
        kafka.cluster = "there"
        del kafka.topics[ROOM]
        kafka.create(ROOM)
        kafka.produce(ROOM, *[b"1"] * 7)
        if same_id:
            kafka.topics[ROOM].topic_id = first
            await trio.sleep(LOOK_SECONDS)
            await cluster.look()  # as `Cluster.run` does
        second = kafka.topics[ROOM].topic_id
        await trio.sleep(3 * WATCH_SECONDS)
        assert told.events[:2] == [Opened(ROOM, first, {0: 5}, created=False), Gone(ROOM, first, told.events[1].cause)]  # type: ignore[union-attr]
        assert told.events[2:] == [Opened(ROOM, second, {0: 0}, created=True)]
        assert marks == [HERE, THERE, THERE]
