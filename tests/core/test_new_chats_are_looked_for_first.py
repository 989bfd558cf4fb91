"""Chats with a subscriber are looked up each second, however many absent ones clients only name; and all of them have their turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import trio

from kafka_chat.chat.names import ChatNames
from kafka_chat.delivery.ports import TopicFacts
from kafka_chat.kafka.cluster import Cluster
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.followed_request import TOPICS_A_LOOK, WATCHES_A_ROUND
from kafka_chat.kafka.tail import KafkaTail
from kafka_chat.settings.model import KafkaSettings, Limits
from kafka_chat.telemetry.metrics import Telemetry
from tests.support.fake_topics import FakeKafka

NAMED = 10 * TOPICS_A_LOOK


class Listener:
    """Knows the subscriptions, and ignores every event."""

    def __init__(self, subscribed: set[str]) -> None:
        self.subscribed = subscribed

    def is_subscribed(self, topic: str) -> bool:
        return topic in self.subscribed

    def topic_missing(self, topic: str) -> None:
        pass


class Absence(FakeKafka):
    """A cluster without topics, which notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicFacts]:
        assert len(topics) <= TOPICS_A_LOOK
        self.asked.update(topics)
        await trio.lowlevel.checkpoint()
        return {}


async def test_each_look_has_what_is_subscribed_and_a_part_of_what_is_only_named(autojump_clock: trio.abc.Clock):
    subscribed = {f"kafka.chat.subscribed{number}" for number in range(100)}
    named = [f"kafka.chat.named{number}" for number in range(NAMED)]
    lookup = Absence()
    tail = KafkaTail(
        ClientConfig(KafkaSettings(bootstrap_servers="nowhere:1")),
        listener=Listener(subscribed),  # type: ignore[arg-type]
        lookup=lookup,  # type: ignore[arg-type]
        cluster=Cluster(lookup, Telemetry()),  # type: ignore[arg-type]
        names=ChatNames("kafka.chat."),
        limits=Limits(),
        telemetry=Telemetry(),
    )
    for topic in [*named, *subscribed]:
        tail.follow(topic)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tail.run_requests)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert set(lookup.asked) == {*named, *subscribed}
    for look in range(1, 2 * WATCHES_A_ROUND + 1):
        lookup.asked.clear()
        await tail._watch()
        assert subscribed <= lookup.asked.keys(), f"at look {look} some had to wait"
        assert len(lookup.asked) - len(subscribed) == NAMED / WATCHES_A_ROUND
        await trio.sleep(1)
    seen: set[str] = set()
    for _ in range(WATCHES_A_ROUND):
        lookup.asked.clear()
        await tail._watch()
        seen |= lookup.asked.keys()
        await trio.sleep(1)
    assert seen == {*named, *subscribed}
