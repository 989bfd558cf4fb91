"""Subscribing while brokers are away, killed or hanging: a refused call has no effect, a confirmed one holds, nothing is delayed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.delivery.ports import KeyedRecord
from kafka_chat.errors import BrokerError, BrokerUnreachable
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.publish import open_publisher
from tests.support.brokers import KafkaCluster
from tests.support.calls import until
from tests.support.chats import Chats
from tests.support.deadlines import HANG_SECONDS
from tests.support.instances import Instance, opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from kafka_chat.chat.partition_key import PartitionKey
    from kafka_chat.delivery.ports import Lookup, TopicFacts

pytestmark = pytest.mark.deadline(120)

ANSWERED_SECONDS = 5.5  # the promise is 5; the machine is shared


def take_away(cluster: KafkaCluster, how: str) -> None:
    if how == "killed":
        cluster.kill()
    else:
        cluster.freeze()


def bring_back(cluster: KafkaCluster, how: str) -> None:
    if how == "killed":
        cluster.start()
    else:
        cluster.thaw()


async def refused(instance: Instance, *further: Callable[[], Awaitable[object]]) -> None:
    """Check that each operation is refused in time."""

    async def check(operation: Callable[[], Awaitable[object]]) -> None:
        began = trio.current_time()
        with pytest.raises(BrokerUnreachable):
            await operation()
        assert trio.current_time() - began < ANSWERED_SECONDS

    async with trio.open_nursery() as nursery:
        nursery.start_soon(check, lambda: instance.subscriptions.subscribe("ann", ["refused"]))
        nursery.start_soon(check, lambda: instance.subscriptions.unsubscribe("ann", ["kept"]))
        nursery.start_soon(check, lambda: instance.subscriptions.following("ann"))
        for operation in further:
            nursery.start_soon(check, operation)


async def answered(instance: Instance, chat: str) -> None:
    """Subscribe as soon as that is possible again."""
    with trio.fail_after(HANG_SECONDS):
        while True:
            try:
                await instance.subscriptions.subscribe("ann", [chat])
            except BrokerError:
                await trio.sleep(0.2)
            else:
                return


async def test_with_no_broker_at_the_start_it_waits_for_one(hanging: KafkaCluster, chats: Chats) -> None:
    hanging.kill()
    async with opened(chats.settings_for(hanging), ready=False) as instance:
        await refused(instance, partial(instance.sending.send, "room", "ann", "refused", None))
        await until(lambda: "failed" in (instance.log.problem or ""))
        assert not instance.log.ready
        await trio.to_thread.run_sync(hanging.start)
        await until(lambda: instance.log.ready and instance.log.problem is None)
        await instance.subscriptions.subscribe("ann", ["kept"])
        assert instance.chats("ann") == ["kept"]


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_what_is_refused_never_comes_true_and_what_was_answered_holds(hanging: KafkaCluster, chats: Chats, how: str) -> None:
    hanging.create_topic(chats.topic("room"))
    settings = chats.settings_for(hanging)
    async with opened(settings) as instance:
        await instance.subscriptions.subscribe("ann", ["kept"])
        await instance.sending.send("room", "ann", "kept", None)
        take_away(hanging, how)
        # What a frozen broker makes of a record that its socket has taken is open; subscribing asks it something first.
        await refused(instance, *([partial(instance.sending.send, "room", "ann", "refused", None)] if how == "killed" else []))
        await until(lambda: instance.log.problem is not None)
        await trio.to_thread.run_sync(bring_back, hanging, how)
        await answered(instance, "after")
        await until(lambda: instance.log.problem is None)
        await trio.sleep(1)
        await instance.subscriptions.subscribe("ann", ["later"])
        assert instance.chats("ann") == ["after", "kept", "later"]
        assert [change.chat for change in instance.changes] == ["kept", "after", "later"]
    async with opened(settings) as later:
        assert later.chats("ann") == ["after", "kept", "later"]
    texts = [record.value for record in hanging.records(chats.topic("room"))]
    assert not any(b"refused" in (text or b"") for text in texts)


class FreezingLookup:
    """Asks the brokers, and freezes them after the last question before something is written."""

    def __init__(self, lookup: Lookup, cluster: KafkaCluster) -> None:
        self._lookup = lookup
        self.timeouts = lookup.timeouts
        self.by_leader = lookup.by_leader
        self._cluster = cluster
        self.freezes = False

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicFacts]:
        return await self._lookup.describe(topics)

    async def last_stable_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        ends = await self._lookup.last_stable_offsets(keys)
        if self.freezes:
            self._cluster.freeze()
        return ends

    async def first_offsets(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        return await self._lookup.first_offsets(keys)

    async def offsets_at(self, keys: Collection[PartitionKey], time_ms: int) -> Mapping[PartitionKey, int]:
        return await self._lookup.offsets_at(keys, time_ms)


@pytest.mark.promise("p-may-be-written")
async def test_a_record_that_a_hanging_broker_has_taken_is_ended_by_the_next_call(hanging: KafkaCluster, chats: Chats) -> None:
    settings = chats.settings_for(hanging)
    lookups: list[FreezingLookup] = []

    def freezing(lookup: Lookup) -> Lookup:
        lookups.append(FreezingLookup(lookup, hanging))
        return lookups[0]

    async with opened(settings, lookup=freezing) as instance:
        await instance.subscriptions.subscribe("ann", ["kept"])
        lookups[0].freezes = True
        began = trio.current_time()
        with pytest.raises(BrokerUnreachable, match="it may or may not have been written"):
            await instance.subscriptions.subscribe("ann", ["doubtful"])
        assert trio.current_time() - began < ANSWERED_SECONDS
        hanging.thaw()
        lookups[0].freezes = False
        with trio.fail_after(HANG_SECONDS):
            while True:
                try:
                    answer = await instance.subscriptions.unsubscribe("ann", ["doubtful"])
                except BrokerError:
                    await trio.sleep(0.2)
                else:
                    break
        assert [chat.chat for chat in answer] == ["global", "kept"]
        await trio.sleep(2)
        await instance.subscriptions.subscribe("ann", ["later"])
        assert instance.chats("ann") == ["kept", "later"]
    async with opened(settings) as later:
        assert later.chats("ann") == ["kept", "later"]


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_closing_is_not_held_up_by_brokers_that_are_away(hanging: KafkaCluster, chats: Chats, how: str) -> None:
    async with opened(chats.settings_for(hanging)) as instance:
        take_away(hanging, how)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(instance.publisher.publish, "any", KeyedRecord(b"k", b"%d" % number))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        began = trio.current_time()
    assert trio.current_time() - began < 1.5  # the publisher, the log and the lookup, one after the other


async def test_who_waits_is_told_when_the_publisher_closes(hanging: KafkaCluster, chats: Chats) -> None:
    hanging.kill()
    told = []

    async def publish() -> None:
        with pytest.raises(BrokerUnreachable) as caught:
            await publisher.publish("any", KeyedRecord(b"k", b"v"))
        told.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        async with open_publisher(ClientConfig(chats.settings_for(hanging).kafka)) as publisher:
            nursery.start_soon(publish)
            await wait_all_tasks_blocked()
            began = trio.current_time()
        assert trio.current_time() - began < 1
    assert len(told) == 1


@pytest.mark.deadline(240)
async def test_with_three_brokers_a_killed_leader_loses_no_answered_subscription(three_brokers: KafkaCluster, chats: Chats) -> None:
    settings = chats.settings_for(three_brokers)
    async with opened(settings) as here, opened(settings) as there:
        assert three_brokers.config(chats.subscriptions_topic)["min.insync.replicas"] == "2"
        held, stop = [], trio.Event()

        async def subscribe_on() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    await here.subscriptions.subscribe(f"user{number}", ["room"])
                    held.append(f"user{number}")
                except BrokerError:
                    await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(subscribe_on)
            await until(lambda: len(held) > 20)
            await trio.to_thread.run_sync(three_brokers.kill, three_brokers.leader(chats.subscriptions_topic))
            before = len(held)
            await until(lambda: len(held) > before + 20, seconds=120)
            stop.set()
        await until(lambda: there.chats(held[-1]) == ["room"])
        assert [user for user in held if there.chats(user) != ["room"]] == []
    async with opened(settings) as later:
        assert [user for user in held if later.chats(user) != ["room"]] == []
