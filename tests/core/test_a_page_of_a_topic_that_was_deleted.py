"""A page of a topic that was deleted delays no page of another topic that the same broker leads."""

from __future__ import annotations

import pytest
import trio

from kafka_chat.errors import BrokerUnreachable, TopicGone
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.page_source import ABSENT_MOST_SECONDS, ABSENT_SECONDS, KafkaPageSource
from kafka_chat.settings.model import KafkaSettings, Limits
from tests.support.fakes import NAMES, FakeKafka

GONE = "kafka.chat.gone"


class Listing(FakeKafka):
    """One that is asked anew for each description, as a lookup is that has described nothing for a second."""

    def described(self, topic: str, *, seconds: float) -> None:
        return None


def reading_from(kafka: Listing) -> KafkaPageSource:
    """Return a source that needs no Consumer, for there is nothing to read."""
    config = ClientConfig(KafkaSettings(bootstrap_servers="127.0.0.1:9"))
    return KafkaPageSource(config, readers=1, silent_leaders=0, names=NAMES, limits=Limits(), lookup=kafka, idle_seconds=30)  # type: ignore[arg-type]


async def outcome(source, key):
    """Return what a read came to, which takes no time."""
    began = trio.current_time()
    with pytest.raises((BrokerUnreachable, TopicGone)) as raised:
        await source.read(key, 0, 10)
    assert trio.current_time() == began
    return raised.type


async def test_nothing_waits_until_a_second_listing_lacks_it_as_well(autojump_clock):
    kafka = Listing()
    kafka.create(GONE)
    key = kafka.key(GONE)
    del kafka.topics[GONE]
    source = reading_from(kafka)
    assert await outcome(source, key) is BrokerUnreachable
    await trio.sleep(ABSENT_SECONDS / 2)
    assert await outcome(source, key) is BrokerUnreachable
    await trio.sleep(ABSENT_SECONDS / 2)
    assert await outcome(source, key) is TopicGone
    await trio.sleep(2 * ABSENT_MOST_SECONDS)  # meanwhile it may have been there
    assert await outcome(source, key) is BrokerUnreachable


async def test_one_that_is_listed_between_two_listings_that_lack_it_is_not_gone(autojump_clock):
    kafka = Listing()
    kafka.create(GONE)
    key = kafka.key(GONE)
    facts = kafka.topics.pop(GONE)
    source = reading_from(kafka)
    assert await outcome(source, key) is BrokerUnreachable
    await trio.sleep(ABSENT_SECONDS)
    kafka.topics[GONE] = facts
    assert await outcome(source, key._replace(partition=7)) is TopicGone  # a partition that it does not have
    del kafka.topics[GONE]
    assert await outcome(source, key) is BrokerUnreachable


async def test_many_that_are_gone_are_not_kept_for_ever(autojump_clock):
    kafka = Listing()
    kafka.create(GONE)
    source, key = reading_from(kafka), kafka.key(GONE)
    for number in range(5_000):
        with pytest.raises(BrokerUnreachable):
            await source.read(key._replace(topic=f"{GONE}{number}"), 0, 10)
    assert len(source._absent) <= 1_000
