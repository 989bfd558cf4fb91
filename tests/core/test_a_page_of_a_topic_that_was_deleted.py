"""A page of a deleted topic delays no page of another topic with the same leader."""

from __future__ import annotations

import pytest
import trio

from kafka_chat.errors import BrokerUnreachable, TopicGone
from kafka_chat.kafka.topic_identity import ABSENT_MOST_SECONDS, ABSENT_SECONDS, ABSENT_TOPICS, TopicIdentity
from tests.support.fake_topics import FakeKafka

GONE = "kafka.chat.gone"


class Listing(FakeKafka):
    """A lookup that asks again for each description, like one that has described nothing for a second."""

    def described(self, topic: str, *, seconds: float) -> None:
        return None


async def outcome(identity, key):
    """Return what a page is refused by, which takes no time."""
    began = trio.current_time()
    with pytest.raises((BrokerUnreachable, TopicGone)) as raised:
        await identity.check(key)
    assert trio.current_time() == began
    return raised.type


async def test_nothing_waits_until_a_second_listing_lacks_it_as_well(autojump_clock):
    kafka = Listing()
    kafka.create(GONE)
    key = kafka.key(GONE)
    del kafka.topics[GONE]
    identity = TopicIdentity(kafka)  # type: ignore[arg-type]
    assert await outcome(identity, key) is BrokerUnreachable
    await trio.sleep(ABSENT_SECONDS / 2)
    assert await outcome(identity, key) is BrokerUnreachable
    await trio.sleep(ABSENT_SECONDS / 2)
    assert await outcome(identity, key) is TopicGone
    await trio.sleep(2 * ABSENT_MOST_SECONDS)  # meanwhile it may have been there
    assert await outcome(identity, key) is BrokerUnreachable


async def test_one_that_is_listed_between_two_listings_that_lack_it_is_not_gone(autojump_clock):
    kafka = Listing()
    kafka.create(GONE)
    key = kafka.key(GONE)
    facts = kafka.topics.pop(GONE)
    identity = TopicIdentity(kafka)  # type: ignore[arg-type]
    assert await outcome(identity, key) is BrokerUnreachable
    await trio.sleep(ABSENT_SECONDS)
    kafka.topics[GONE] = facts
    assert await outcome(identity, key._replace(partition=7)) is TopicGone  # a partition that it does not have
    del kafka.topics[GONE]
    assert await outcome(identity, key) is BrokerUnreachable


async def test_many_that_are_gone_are_not_kept_for_ever(autojump_clock):
    kafka = Listing()
    kafka.create(GONE)
    identity, key = TopicIdentity(kafka), kafka.key(GONE)  # type: ignore[arg-type]
    for number in range(5_000):
        with pytest.raises(BrokerUnreachable):
            await identity.check(key._replace(topic=f"{GONE}{number}"))
    assert len(identity._absent) <= ABSENT_TOPICS
