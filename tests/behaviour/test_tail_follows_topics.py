"""What a Tail reports of topics that exist, are created, or are no longer wanted; on both brokers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio

from kafka_chat.chat.message import Reject
from kafka_chat.delivery.records.batch import BATCH_BYTES
from kafka_chat.kafka.lookup import open_lookup
from tests.support.chats import message
from tests.support.deadlines import HANG_SECONDS
from tests.support.leaks import nothing_left
from tests.support.tails import Appended, Missing, Opened, client_config, following

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kafka_chat.delivery.ports import TopicFacts
    from kafka_chat.kafka.lookup import KafkaLookup


class Looks:
    """A Lookup that notes when the Tail looks at topics."""

    def __init__(self, lookup: KafkaLookup) -> None:
        self._lookup = lookup
        self._begun: Counter[str] = Counter()
        self._news = trio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._lookup, name)

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicFacts]:
        self._begun.update(topics)
        self._news.set()
        self._news = trio.Event()
        return await self._lookup.describe(topics)

    async def at(self, topic: str, times: int) -> None:
        """Wait until the Tail has looked so often at a topic: the next look has begun."""
        while self._begun[topic] <= times:
            await self._news.wait()


def numbered(begin: int, end: int) -> list[bytes]:
    return [message(str(number)) for number in range(begin, end)]


async def test_a_topic_is_opened_at_its_ends_and_what_comes_is_appended_in_order(broker, chats):
    topic = chats.topic("blue")
    broker.create_topic(topic, 3)
    broker.produce_many(topic, numbered(0, 5), partition=0)
    broker.produce_many(topic, numbered(0, 2), partition=2)
    ends = {partition: broker.offsets(topic, partition).last_stable for partition in range(broker.topics()[topic])}
    async with following(broker, chats, topic) as following_:
        told = following_.told
        opened = await told.opened(topic)
        assert opened.starts == ends
        assert not opened.created
        for partition in range(3):
            broker.produce_many(topic, numbered(0, 1500), partition=partition)
        await told.until(lambda: len(told.texts(topic)) >= 4500)
        for partition in range(3):
            assert told.texts(topic, partition) == [str(number) for number in range(1500)]
            assert told.position(topic, partition) == ends[partition] + 1500


async def test_everything_produced_after_a_request_was_answered_is_appended(broker, chats):
    """Repeated, each time with a topic that is new to the Tail, because races happen in the first moments."""
    async with following(broker, chats) as following_:
        told = following_.told
        for number in range(10):
            topic = chats.topic(f"t{number}")
            broker.create_topic(topic)
            broker.produce(topic, message("before"), partition=0)
            following_.tail.follow(topic)
            await told.opened(topic)
            broker.produce(topic, message("after"), partition=0)
            await told.until(lambda topic=topic: bool(told.texts(topic)))
            assert told.texts(topic) == ["after"]


async def test_an_absent_topic_is_told_missing_once_and_opened_at_zero_when_it_comes(broker, chats):
    topic = chats.topic("later")
    async with open_lookup(client_config(broker)) as lookup, following(broker, chats, topic, lookup=(looks := Looks(lookup))) as following_:
        told = following_.told
        await told.until(lambda: bool(told.of(Missing, topic)))
        await looks.at(topic, 3)
        assert topic not in broker.topics()
        broker.produce(topic, message("first"), partition=0)
        with trio.fail_after(HANG_SECONDS):
            await told.until(lambda: bool(told.texts(topic)))
        opened = await told.opened(topic)
        assert opened.created
        assert set(opened.starts.values()) == {0}
        assert told.texts(topic) == ["first"]
        assert told.of(Missing, topic) == [Missing(topic)]


async def test_after_unfollow_nothing_more_is_told(broker, chats):
    topic, other = chats.topic("left"), chats.topic("kept")
    for name in (topic, other):
        broker.create_topic(name)
    async with following(broker, chats, topic, other) as following_:
        told = following_.told
        await told.opened(topic)
        await told.opened(other)
        async with trio.open_nursery() as nursery:

            async def produce() -> None:
                for number in range(20):
                    await trio.to_thread.run_sync(lambda: broker.produce_many(topic, numbered(0, 50), partition=0))
                    await trio.to_thread.run_sync(lambda number=number: broker.produce(other, message(str(number)), partition=0))

            nursery.start_soon(produce)
            await told.until(lambda: len(told.texts(topic)) > 200)
            following_.tail.unfollow(topic)
            events = len(told.of(Appended, topic))
        await told.until(lambda: len(told.texts(other)) == 20)
        assert len(told.of(Appended, topic)) == events
        following_.tail.unfollow(topic)


async def test_unfollowed_from_within_what_it_tells_the_tail_is_silent_at_once(broker, chats):
    topic, other = chats.topic("left"), chats.topic("kept")
    broker.create_topic(topic, 3)
    broker.create_topic(other)
    async with following(broker, chats, topic, other) as following_:
        told, tail = following_.told, following_.tail
        await told.opened(topic)
        await told.opened(other)
        told.during = lambda event: tail.unfollow(topic) if isinstance(event, Appended) else None
        for partition in range(3):
            broker.produce(topic, message("x"), partition=partition)
        await told.until(lambda: bool(told.texts(topic)))
        broker.produce(other, message("x"), partition=0)
        await told.until(lambda: bool(told.texts(other)))
        assert len(told.of(Appended, topic)) == 1


async def test_a_topic_that_is_followed_and_unfollowed_in_turn_is_followed_in_the_end(broker, chats):
    topic = chats.topic("restless")
    broker.create_topic(topic)
    async with following(broker, chats) as following_:
        told, tail = following_.told, following_.tail
        for pause in (None, 0, 0, 0.001, 0.003, 0.01, 0.03, 0.1):
            tail.follow(topic)
            if pause is not None:
                await trio.sleep(pause)
            tail.unfollow(topic)
            told.positions.clear()
        opened = len(told.of(Opened, topic))
        tail.follow(topic)
        tail.follow(topic)
        await told.opened(topic, opened + 1)
        broker.produce_many(topic, numbered(0, 100), partition=0)
        await told.until(lambda: len(told.texts(topic)) >= 100)
        assert told.texts(topic) == [str(number) for number in range(100)]
        assert len(told.of(Opened, topic)) == opened + 1


async def test_a_topic_followed_again_begins_at_its_end_then(broker, chats):
    topic = chats.topic("again")
    broker.create_topic(topic)
    async with following(broker, chats, topic) as following_:
        told, tail = following_.told, following_.tail
        await told.opened(topic)
        broker.produce(topic, message("one"), partition=0)
        await told.until(lambda: bool(told.texts(topic)))
        tail.unfollow(topic)
        told.positions.clear()
        broker.produce(topic, message("two"), partition=0)
        tail.follow(topic)
        await told.opened(topic, 2)
        broker.produce(topic, message("three"), partition=0)
        await told.until(lambda: len(told.texts(topic)) == 2)
        assert told.texts(topic) == ["one", "three"]


async def test_records_that_are_no_message_are_counted_and_stop_nobody(broker, chats):
    topic = chats.topic("mixed")
    broker.create_topic(topic)
    async with following(broker, chats, topic) as following_:
        told = following_.told
        start = (await told.opened(topic)).starts[0]
        broker.produce_many(topic, [b"{", message("good"), None, b"[]"], partition=0)
        await told.until(lambda: told.position(topic) == start + 4)
        assert told.texts(topic) == ["good"]
        assert following_.noted.rejected == [
            (topic, 0, start, Reject.BAD_JSON),
            (topic, 0, start + 2, Reject.TOMBSTONE),
            (topic, 0, start + 3, Reject.WRONG_SHAPE),
        ]


async def test_no_batch_is_larger_than_a_batch_may_be_unless_it_is_one_record(broker, chats):
    topic = chats.topic("large")
    broker.create_topic(topic)
    sizes = [100_000] * 7 + [900_000] + [10] * 50 + [200_000] * 3
    async with following(broker, chats, topic) as following_:
        told = following_.told
        await told.opened(topic)
        broker.produce_many(topic, [message("x" * size) for size in sizes], partition=0)
        await told.until(lambda: len(told.texts(topic)) == len(sizes))
        assert [len(text) for text in told.texts(topic)] == sizes
        for batch in told.batches:
            assert batch.messages == 1 or batch.size < BATCH_BYTES + 100 * batch.messages + 1000


@pytest.mark.promise("p-makes-one-topic")
async def test_following_creates_no_topic(broker, chats):
    absent = [chats.topic(f"no{number}") for number in range(5)]
    async with (
        open_lookup(client_config(broker)) as lookup,
        following(broker, chats, *absent, lookup=(looks := Looks(lookup))) as following_,
    ):
        told = following_.told
        for topic in absent:
            await told.until(lambda topic=topic: bool(told.of(Missing, topic)))
            await looks.at(topic, 2)
        assert not [name for name in broker.topics() if name.startswith(chats.prefix)]


async def test_cancelled_at_any_moment_it_leaves_nothing(broker, chats):
    topic = chats.topic("blue")
    broker.create_topic(topic)
    broker.produce(topic, message("x"), partition=0)

    async def cancel_after(seconds: float) -> None:
        with trio.move_on_after(seconds):
            async with following(broker, chats, topic, chats.topic("absent")) as following_:
                while True:
                    await trio.to_thread.run_sync(lambda: broker.produce(topic, message("x"), partition=0))
                    following_.tail.unfollow(topic)
                    following_.told.positions.clear()
                    following_.tail.follow(topic)

    await cancel_after(0.5)  # once before counting, for what is made once a process
    async with nothing_left(brokers=broker.bootstrap):
        for milliseconds in (0, 1, 2, 4, 8, 15, 30, 60, 120, 250):
            began = trio.current_time()
            await cancel_after(milliseconds / 1000)
            assert trio.current_time() - began < milliseconds / 1000 + 1


async def test_topics_that_are_spread_over_several_consumers_are_appended_in_order(embedded, chats):
    topics = [chats.topic(f"t{number}") for number in range(300)]  # of four partitions each
    for topic in topics:
        embedded.create_topic(topic)
    async with nothing_left(), following(embedded, chats, *topics, consumers=3) as following_:
        told = following_.told
        for topic in topics:
            await told.opened(topic)
        for number in range(3):
            for topic in topics:
                embedded.produce(topic, message(str(number)), partition=number)
                embedded.produce(topic, message("and last"), partition=3)
        await told.until(lambda: all(len(told.texts(topic)) == 6 for topic in topics))
        for topic in topics:
            assert [told.texts(topic, partition) for partition in range(4)] == [["0"], ["1"], ["2"], ["and last"] * 3]
