"""The in-memory subscription log and publisher do what the real ones do, as far as the core relies on it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.ports import KeyedRecord
from kafka_chat.errors import BrokerError
from tests.support.fake_subscription_log import FakePublisher, FakeSubscriptionLog
from tests.support.instances import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kafka_chat.delivery.ports import Publisher, SubscriptionLog
    from tests.support.brokers import Broker
    from tests.support.chats import Chats


class Place:
    """A subscriptions topic, and instances that read it: in memory, or on a broker."""

    def __init__(self, broker: Broker | None, chats: Chats) -> None:
        self._settings = None if broker is None else chats.settings_for(broker)
        self._publisher = FakePublisher()
        self.topic = chats.topic("room")
        if broker is not None:
            broker.create_topic(self.topic)

    @asynccontextmanager
    async def instance(self, *, ready: bool = True) -> AsyncIterator[tuple[SubscriptionLog, Publisher, list[SubscriptionChange]]]:
        if self._settings is not None:
            async with opened(self._settings, ready=ready) as instance:
                yield instance.log, instance.publisher, instance.changes
            return
        changes: list[SubscriptionChange] = []
        log = FakeSubscriptionLog(self._publisher, changes.append)
        async with trio.open_nursery() as nursery:
            if ready:
                await nursery.start(log.run)
            else:
                nursery.start_soon(log.run)
            yield log, self._publisher, changes
            nursery.cancel_scope.cancel()


@pytest.fixture(params=["fake", "embedded", "kafka"])
def place(request: pytest.FixtureRequest, chats: Chats) -> Place:
    return Place(None if request.param == "fake" else request.getfixturevalue(request.param), chats)


def subscribed(chat: str, starts: dict[int, int] | None = None, *, offset: int = -1) -> SubscriptionChange:
    return SubscriptionChange(username="ann", chat=chat, subscribed=True, topic_id="id1", starts=starts or {}, offset=offset)


def ended(chat: str, *, offset: int = -1) -> SubscriptionChange:
    return SubscriptionChange(username="ann", chat=chat, subscribed=False, starts={}, offset=offset)


async def test_what_is_written_is_known_once_it_is_passed_and_told_in_order(place: Place) -> None:
    async with place.instance() as (log, _, changes):
        assert log.ready
        assert log.problem is None
        assert log.chats_of("ann") == {}
        first = await log.write([subscribed("room1", {0: 7, 3: 0}), subscribed("room2")])
        second = await log.write([ended("room1"), subscribed("room3")])
        assert second == first + 2
        await log.passed(second)
        room1, room2 = subscribed("room1", {0: 7, 3: 0}, offset=first - 1), subscribed("room2", offset=first)
        room3 = subscribed("room3", offset=second)
        assert log.position > second
        assert log.chats_of("ann") == {"room2": room2, "room3": room3}
        await log.passed(first)
        assert changes == [room1, room2, ended("room1", offset=second - 1), room3]


async def test_who_is_told_of_a_change_finds_it_there_already(place: Place) -> None:
    async with place.instance() as (log, _, changes):
        await log.passed(await log.write([subscribed("room1")]))
        assert changes
        assert "room1" in log.chats_of("ann")


async def test_the_first_start_counts_and_what_changes_nothing_is_not_told(place: Place) -> None:
    async with place.instance() as (log, _, changes):
        offset = await log.write([subscribed("room1", {0: 1})])
        await log.passed(await log.write([subscribed("room1", {0: 2}), ended("room2")]))
        assert log.chats_of("ann")["room1"].starts == {0: 1}
        assert changes == [subscribed("room1", {0: 1}, offset=offset)]


async def test_a_later_instance_knows_and_is_told_nothing(place: Place) -> None:
    async with place.instance() as (log, _, _), place.instance() as (other, _, told):
        offset = await log.write([subscribed("room1")])
        await other.passed(offset)
        assert told == [subscribed("room1", offset=offset)]
    async with place.instance() as (later, _, changes):
        assert list(later.chats_of("ann")) == ["room1"]
        assert changes == []


async def test_nothing_is_written_before_it_is_read(place: Place) -> None:
    async with place.instance(ready=False) as (log, _, _):
        if not log.ready:
            with pytest.raises(BrokerError):
                await log.write([subscribed("room1")])
        await log.wait_ready()
        await log.passed(await log.write([subscribed("room1")]))


async def test_records_of_one_key_keep_their_order(place: Place) -> None:
    async with place.instance() as (_, publisher, _):
        places = [await publisher.publish(place.topic, KeyedRecord(b"ann", b"%d" % number)) for number in range(5)]
        assert {(at.topic, at.partition) for at in places} == {(place.topic, places[0].partition)}
        assert [at.offset for at in places] == list(range(5))
