"""Checks whether a topic is still the one whose page is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..errors import BrokerError, BrokerUnreachable, TopicGone

if TYPE_CHECKING:
    from ..chat.partition_key import PartitionKey
    from ..delivery.ports import TopicFacts
    from .lookup import KafkaLookup

ABSENT_SECONDS = 1.0  # how far apart two listings without a topic are before it counts as absent; …
ABSENT_MOST_SECONDS = 30.0  # … and at most: in a longer time it may have existed
ABSENT_TOPICS = 1_000  # how many are remembered
IDENTITY_SECONDS = 1.0  # how old the known id of a topic may be when a read begins, …
FRESH_SECONDS = 0.1  # … and when it ends: a topic is not deleted, recreated and filled in such a short time


class TopicIdentity:
    """Checks topics against the brokers' latest listings.

    It does not wait until a topic is certainly absent: the read is repeated soon, while a wait would make the leader seem silent and
    delay other reads.
    """

    def __init__(self, lookup: KafkaLookup) -> None:
        self._lookup = lookup
        self._absent: dict[str, float] = {}  # topics missing in the last listing -> when first missing, if recent enough

    async def check(self, key: PartitionKey) -> None:
        """Return if the topic was the one of `key` at most a second ago.

        Raises:
            TopicGone: it is another one, or does not exist.
            BrokerUnreachable: a broker, possibly a restarted one, does not list it; or none answers.
        """
        facts = None if key.topic in self._absent else self._lookup.described(key.topic, seconds=IDENTITY_SECONDS)
        refusal = await self.refusal(key) if facts is None else self._refusal(key, facts)
        if refusal is not None:
            raise refusal

    def is_fresh(self, key: PartitionKey) -> bool:
        """Whether a topic was described so recently that a read that begins now cannot get another topic's records."""
        return self._lookup.described(key.topic, seconds=FRESH_SECONDS) is not None

    async def refusal(self, key: PartitionKey) -> BrokerError | None:
        """Ask the brokers, and return why a partition cannot be read, or None.

        Raises:
            BrokerError: no broker answers.
        """
        return self._refusal(key, (await self._lookup.describe([key.topic])).get(key.topic))

    def _refusal(self, key: PartitionKey, facts: TopicFacts | None) -> BrokerError | None:
        if facts is None and not self._is_absent(key.topic):
            return BrokerUnreachable(f"{key} cannot be read: no broker lists its topic now", topic=key.topic, partition=key.partition)
        if facts is not None:
            self._absent.pop(key.topic, None)
            if facts.topic_id == key.topic_id and key.partition in facts.partitions:
                return None
        there = facts or "none"
        return TopicGone(f"{key} of id {key.topic_id} is gone; there is now {there}", topic=key.topic, partition=key.partition)

    def _is_absent(self, topic: str) -> bool:
        """Note that a topic is missing in a listing; return whether it was also missing long enough ago."""
        now = trio.current_time()
        since = self._absent.pop(topic, now)
        if len(self._absent) >= ABSENT_TOPICS:
            self._absent.clear()
        self._absent[topic] = since = since if now - since <= ABSENT_MOST_SECONDS else now
        return now - since >= ABSENT_SECONDS
