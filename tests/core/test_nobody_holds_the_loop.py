"""No walk over clients blocks the loop, and a client that comes or goes during one gets its messages once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.log.fan_out import FanOut
from kafka_chat.delivery.log.follower import LogCursor
from kafka_chat.delivery.log.memory import Memory
from kafka_chat.delivery.log.partition_log import PartitionLog
from kafka_chat.delivery.records.batch import Batch
from kafka_chat.delivery.records.formats import PLAIN, Format
from kafka_chat.delivery.records.record import Record
from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.loop_sharing import TURN_SECONDS
from kafka_chat.telemetry.metrics import Telemetry
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core
from tests.support.loop_steps import loop_steps

GLOBAL = "kafka.chat.global"
ROOM = "kafka.chat.room"
OF_THE_TEST = ("<test",)


class SlowToOffer(FakeClient):
    """A socket that takes so long that the walk lets others have their turn."""

    def offer(self, frames: bytes) -> bool:
        time.sleep(1.5 * TURN_SECONDS)
        return super().offer(frames)


@asynccontextmanager
async def crowd(core: Core, clients: Sequence[FakeClient], user: str = "user{}", **options: Any) -> AsyncIterator[None]:
    """Have all of them connected, an option each: `tags` is a function of a client's number."""
    async with trio.open_nursery() as nursery:

        async def stay(number: int, *, task_status: trio.TaskStatus[None]) -> None:
            asked = {name: of(number) if callable(of) else of for name, of in options.items()}
            async with core.connected(clients[number], user.format(number), options=SessionOptions(**asked) if asked else None):
                task_status.started()
                await trio.sleep_forever()

        for number in range(len(clients)):
            await nursery.start(stay, number)
        await wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


def tag_of(number: int) -> frozenset[str]:
    return frozenset({f"t{number}"})


async def test_a_message_to_clients_with_a_filter_each(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        clients = [FakeClient() for _ in range(300)]
        async with crowd(core, clients, tags=tag_of):
            with loop_steps() as steps:
                core.kafka.produce(GLOBAL, value("to all"), *[value("to the last", tag="t299")] * 500)
                await wait_all_tasks_blocked()
            steps.check(ignore=OF_THE_TEST)
    assert [len(client.texts) for client in clients] == [*[1] * 299, 501]


async def test_a_burst_to_clients_of_every_form(autojump_clock):
    async with open_core(memory_bytes=1 << 26) as core:
        core.kafka.create(GLOBAL)
        clients = [FakeClient() for _ in range(30)]
        forms = (Format.PLAIN, Format.V1, Format.EVENTS)
        async with crowd(core, clients, format=lambda number: forms[number % 3], tags=lambda n: tag_of(n) if n > 2 else None):
            with loop_steps() as steps:
                for first in range(0, 10_000, 1000):
                    core.kafka.produce(GLOBAL, *[value(f"m{n}", tag=f"t{n % 30}") for n in range(first, first + 1000)])
                await wait_all_tasks_blocked()
            steps.check(ignore=OF_THE_TEST)
        assert clients[0].texts == [f"m{n}" for n in range(10_000)]
        assert clients[3].texts == [f"m{n}" for n in range(3, 10_000, 30)]


async def test_who_comes_and_goes_during_a_walk_over_filters(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        clients = [SlowToOffer() for _ in range(6)]
        for number in range(6):
            core.chats[f"user{number}"] = {"room"}
        core.chats["late"] = {"room"}
        late = FakeClient()
        async with crowd(core, clients, tags=tag_of):
            core.kafka.produce(ROOM, value("hello"))
            for _ in range(100):  # turns of the loop; the walk begins in one of the first
                if clients[0].got:
                    break
                await trio.lowlevel.checkpoint()
            assert not clients[3].got, "the walk is over already"
            topic_id = core.kafka.topics[ROOM].topic_id
            change = SubscriptionChange(username="user3", chat="room", subscribed=True, topic_id=topic_id, starts={0: 0})
            gone = SubscriptionChange(username="user4", chat="room", subscribed=False, starts={})
            await core.audience.user_changed(SubscriptionChange(username="user3", chat="room", subscribed=False, starts={}))
            await core.audience.user_changed(change)  # it goes and comes again
            await core.audience.user_changed(gone)
            async with core.connected(late, "late", options=SessionOptions(tags=tag_of(5))):  # of a filter whose turn is yet to come
                core.kafka.produce(ROOM, value("again"))
                await wait_all_tasks_blocked()
    both = ["hello", "again"]
    assert [client.texts for client in clients] == [both, both, both, both, [], both]
    assert late.texts == ["again"]


def scheduled(event: trio.Event) -> None:
    """Take as long as waking a task does."""
    event.set()
    sum(range(300))


class Idle:
    """A follower that counts how often it is woken. See `Follower`."""

    def __init__(self, log: PartitionLog, *, parked: bool = False) -> None:
        self.parked = parked
        self.woken = trio.Event()
        log.followers.setdefault(PLAIN, {})[LogCursor(self, log, log.head)] = None  # type: ignore[arg-type]  # all that a walk asks of it

    def wake(self) -> None:
        scheduled(self.woken)


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20], ids=["memory has nothing left to offer", "nobody is parked"])
async def test_many_that_have_to_read_for_themselves_are_woken(autojump_clock, memory_bytes):
    memory, telemetry = Memory(memory_bytes), Telemetry()
    fanout = FanOut(telemetry=telemetry)
    key = PartitionKey(GLOBAL, "id", 0)
    log = PartitionLog(key, 0, memory)
    followers = [Idle(log) for _ in range(12_000)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fanout.run)
        await wait_all_tasks_blocked()
        log.append(Batch.decode([Record(0, value("m"))], key, first=0, next=1, chat="global", max_bytes=1000))
        with loop_steps() as steps:
            fanout.changed(log)
            await wait_all_tasks_blocked()
        steps.check(ignore=OF_THE_TEST)
        nursery.cancel_scope.cancel()
    assert all(follower.woken.is_set() for follower in followers)


async def test_many_that_wait_for_one_page_are_woken(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("m"))
        log = PartitionLog(core.kafka.key(GLOBAL), 1, core.memory)
        events = [trio.Event() for _ in range(12_000)]
        for event in events:
            core.reads.want(log, 0, partial(scheduled, event))
        with loop_steps() as steps:
            await wait_all_tasks_blocked()
        steps.check(ignore=OF_THE_TEST)
        log.close()
    assert all(event.is_set() for event in events)
