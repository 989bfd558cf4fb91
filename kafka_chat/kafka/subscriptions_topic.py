"""Creates and checks the subscriptions topic: only a compacted one keeps the subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from ..delivery.ports import KeyedRecord
from ..errors import BrokerError, BrokerUnreachable
from .connect import admin_futures, broker_error

if TYPE_CHECKING:
    from ..delivery.ports import Publisher, TopicFacts
    from .connect import ClientConfig
    from .lookup import KafkaLookup

BROKERS_DEFAULT = -1
COMPACT = "compact"


class SubscriptionsTopic:
    """Creates the topic with a short-lived AdminClient, and checks it.

    Args:
        config: how to reach the brokers.
        topic: its name.
        lookup: asks the brokers about it.
        publisher: creates it on the embedded broker, which supports neither creating topics nor compaction.
    """

    def __init__(self, config: ClientConfig, topic: str, *, lookup: KafkaLookup, publisher: Publisher) -> None:
        self.name = topic
        self._config = config
        self._lookup = lookup
        self._publisher = publisher

    async def ensure(self) -> TopicFacts:
        """Return the facts of the topic, after creating it if it is missing.

        Raises:
            BrokerUnreachable: no broker answers.
            BrokerError: creating it was refused, or its configuration is wrong; the message says what to do.
        """
        facts = await self.look()
        if facts is None:
            await self._make()
            facts = await self._appeared()
        problem = await self.problem(facts)
        if problem:
            raise BrokerError(problem, topic=self.name)
        return facts

    async def look(self) -> TopicFacts | None:
        """Return the topic's facts, None if it does not exist; raise `BrokerUnreachable` if no broker answers."""
        return (await self._lookup.describe([self.name])).get(self.name)

    async def problem(self, facts: TopicFacts) -> str | None:
        """Return a sentence about what is wrong with the topic's configuration, or None.

        Raises:
            BrokerUnreachable: no broker answers.
            BrokerError: reading its configuration is not permitted.
        """
        if self._config.embedded:
            return None
        if len(facts.partitions) != 1:
            return f"the subscriptions topic {self.name} has {len(facts.partitions)} partitions; exactly one is needed"
        policy = await self._lookup.cleanup_policy(self.name)
        if policy != COMPACT:
            return f"the subscriptions topic {self.name} would lose subscriptions: its cleanup.policy is {policy}; compact is needed"
        return None

    async def _make(self) -> None:
        doing = f"creating the subscriptions topic {self.name} (one partition, compacted)"
        if self._config.embedded:
            await self._publisher.publish(self.name, KeyedRecord(None, None), partition=0)
            return
        wanted = NewTopic(self.name, num_partitions=1, replication_factor=BROKERS_DEFAULT, config={"cleanup.policy": COMPACT})
        admin = AdminClient(self._config.admin())
        timeouts = self._config.timeouts
        futures = admin.create_topics([wanted], request_timeout=timeouts.answer_seconds)
        answers = await admin_futures(futures, doing=doing, timeout_seconds=timeouts.answer_seconds, timeouts=timeouts)
        answer = answers[self.name]
        if isinstance(answer, KafkaError) and answer.code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another instance was faster
            raise broker_error(answer, doing, topic=self.name)

    async def _appeared(self) -> TopicFacts:
        """Return its facts once the brokers know it; waits at most one response time."""
        seconds = self._config.timeouts.answer_seconds
        with trio.move_on_after(seconds):
            while True:
                facts = await self.look()
                if facts is not None:
                    return facts
                await trio.sleep(0.05)
        raise BrokerUnreachable(f"the subscriptions topic {self.name} was created, but does not exist after {seconds:g} s")
