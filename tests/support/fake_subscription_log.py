"""Kafka's subscriptions topic and its producer, in memory, at the ports of the core."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.chat.subscription_fold import Following, record_key, record_value
from kafka_chat.delivery.ports import KeyedRecord, Published
from kafka_chat.errors import BrokerError, BrokerUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class FakePublisher:
    """A Publisher into lists of records, one partition a topic.

    Attributes:
        topics: topic -> its records.
        away: no broker answers.
        gate: where set, acknowledgements wait for it, the records being written already.
    """

    def __init__(self) -> None:
        self.topics: dict[str, list[KeyedRecord]] = {}
        self.away = False
        self.gate: trio.Event | None = None

    async def publish(self, topic: str, record: KeyedRecord, *, partition: int | None = None) -> Published:
        return Published(topic, partition or 0, await self.publish_together(topic, [record], partition=partition or 0))

    async def publish_together(self, topic: str, records: Sequence[KeyedRecord], *, partition: int) -> int:
        await trio.lowlevel.checkpoint()
        if self.away:
            await trio.sleep(3)
            raise BrokerUnreachable(f"writing to {topic}/{partition}")
        log = self.topics.setdefault(topic, [])
        log += records
        offset = len(log) - 1
        if self.gate is not None:
            await self.gate.wait()
        return offset


class FakeSubscriptionLog:
    """One instance's tail of a subscriptions topic; several may have the same publisher, and so the same topic.

    Attributes:
        listener: is notified of changes.
        problem: a test sets it.
    """

    TOPIC = "subscriptions"

    def __init__(self, publisher: FakePublisher, listener: Callable[[SubscriptionChange], None] = lambda _: None) -> None:
        self.listener = listener
        self.problem: str | None = None
        self._publisher = publisher
        self._records = publisher.topics.setdefault(self.TOPIC, [])
        self._following = Following()
        self._position = 0
        self._moved = trio.Event()
        self._ready = trio.Event()

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    @property
    def position(self) -> int:
        return self._position

    async def wait_ready(self) -> None:
        await self._ready.wait()

    def chats_of(self, username: str) -> Mapping[str, SubscriptionChange]:
        return self._following.chats_of(username)

    async def write(self, changes: Sequence[SubscriptionChange]) -> int:
        if self.problem or not self.ready:
            raise BrokerError(self.problem or "not read yet")
        records = [KeyedRecord(record_key(change.username, change.chat), record_value(change)) for change in changes]
        return await self._publisher.publish_together(self.TOPIC, records, partition=0)

    async def passed(self, offset: int) -> None:
        await trio.lowlevel.checkpoint()
        while self._position <= offset:
            await self._moved.wait()

    def read(self) -> None:
        """Read to the end of the topic; otherwise only `run` reads."""
        for record in self._records[self._position :]:
            outcome = self._following.apply(*record[:2], offset=self._position)
            self._position += 1
            if self.ready and isinstance(outcome, SubscriptionChange):
                self.listener(outcome)
        self._ready.set()
        self._moved.set()
        self._moved = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Go on reading until cancelled."""
        self.read()
        task_status.started()
        while True:
            await trio.sleep(0.01)
            self.read()
