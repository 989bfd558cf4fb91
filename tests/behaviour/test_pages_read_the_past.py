"""What a PageSource reads, where a page ends, and which errors it raises; on both brokers."""

from __future__ import annotations

import json
import os
import random
import threading
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest
import trio

from kafka_chat.chat.message import Reject
from kafka_chat.chat.names import ChatNames
from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.delivery.records.batch import BATCH_BYTES
from kafka_chat.delivery.records.frames import text_payloads
from kafka_chat.errors import BrokerUnreachable, PositionLost, TopicGone
from kafka_chat.kafka.lookup import open_lookup
from kafka_chat.kafka.page_source import open_page_source
from kafka_chat.kafka.topic_identity import ABSENT_SECONDS, IDENTITY_SECONDS
from kafka_chat.settings.model import Limits
from tests.support.brokers import kafka_cluster
from tests.support.calls import until
from tests.support.chats import message
from tests.support.deadlines import HANG_SECONDS
from tests.support.leaks import nothing_left
from tests.support.tails import client_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kafka_chat.delivery.ports import TopicFacts
    from kafka_chat.delivery.records.batch import Batch
    from kafka_chat.kafka.lookup import KafkaLookup
    from kafka_chat.kafka.page_source import KafkaPageSource
    from tests.support.brokers import Broker
    from tests.support.chats import Chats


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Pages, and the key of one partition."""

    pages: KafkaPageSource
    key: PartitionKey


@asynccontextmanager
async def reading(
    broker: Broker, chats: Chats, topic: str, *, partition: int = 0, readers: int = 4, idle_seconds: float = 30.0
) -> AsyncIterator[Reading]:
    config = client_config(broker)
    async with (
        open_lookup(config) as lookup,
        open_page_source(
            config, readers=readers, names=ChatNames(chats.prefix), limits=Limits(), lookup=lookup, idle_seconds=idle_seconds
        ) as pages,
    ):
        facts = (await lookup.describe([topic]))[topic]
        yield Reading(pages=pages, key=PartitionKey(topic, facts.topic_id, partition))


def texts(page: Batch) -> list[str]:
    return [json.loads(payload)["text"] for payload in text_payloads(page.whole().data)]


def numbered(begin: int, end: int) -> list[bytes]:
    return [message(str(number)) for number in range(begin, end)]


async def test_a_page_is_exactly_the_range_that_was_asked_for(broker, chats):
    topic = chats.topic("past")
    broker.create_topic(topic, 2)
    broker.produce_many(topic, numbered(0, 3000), partition=1)
    async with reading(broker, chats, topic, partition=1) as past:
        for first, until in ((0, 512), (512, 1024), (1023, 1024), (100, 1100), (2488, 3000), (0, 512)):
            page = await past.pages.read(past.key, first, until)
            assert (page.first, page.next) == (first, until)
            assert texts(page) == [str(number) for number in range(first, until)]


async def test_a_page_ends_at_the_end_of_the_log_and_waits_for_nothing(broker, chats):
    topic = chats.topic("past")
    broker.create_topic(topic)
    broker.produce_many(topic, numbered(0, 10), partition=0)
    async with reading(broker, chats, topic) as past:
        began = trio.current_time()
        page = await past.pages.read(past.key, 4, 500)
        assert (page.first, page.next) == (4, 10)
        assert texts(page) == [str(number) for number in range(4, 10)]
        assert trio.current_time() - began < 3


async def test_a_page_holds_a_batch_of_bytes_or_one_record(broker, chats):
    topic = chats.topic("past")
    broker.create_topic(topic)
    broker.produce_many(topic, [message("x" * 100_000) for _ in range(6)] + [message("y" * 900_000)] + numbered(7, 9), partition=0)
    async with reading(broker, chats, topic) as past:
        position, pages = 0, []
        while position < 9:
            page = await past.pages.read(past.key, position, 9)
            assert page.first == position < page.next
            assert page.messages == 1 or page.size < BATCH_BYTES + 10_000
            pages.append(page.messages)
            position = page.next
        assert pages == [2, 2, 2, 1, 2]


async def test_records_that_are_no_message_are_in_the_page_as_rejects(broker, chats):
    topic = chats.topic("past")
    broker.create_topic(topic)
    broker.produce_many(topic, [b"{", message("good"), None], partition=0)
    async with reading(broker, chats, topic) as past:
        page = await past.pages.read(past.key, 0, 3)
        assert (page.next, texts(page)) == (3, ["good"])
        assert [(rejected.offset, rejected.reason) for rejected in page.rejected] == [(0, Reject.BAD_JSON), (2, Reject.TOMBSTONE)]


async def gone_after(pages: KafkaPageSource, key: PartitionKey, *, seconds: float) -> None:
    """Read until the topic is said to be gone, as a read has to that begins so many seconds from now, or later."""
    due = trio.current_time() + seconds
    with suppress(TopicGone):
        while True:
            began = trio.current_time()
            with suppress(BrokerUnreachable):
                await pages.read(key, 0, 1)
            assert began < due, f"no read of {key} says that it is gone"


async def test_a_partition_that_is_not_there_is_gone(broker, chats):
    topic = chats.topic("past")
    broker.create_topic(topic)
    broker.produce(topic, message("x"), partition=0)
    async with reading(broker, chats, topic) as past:
        for key in (past.key._replace(topic_id="another"), past.key._replace(partition=77)):
            with pytest.raises(TopicGone):
                await past.pages.read(key, 0, 1)
        absent = past.key._replace(topic=chats.topic("absent"))
        with pytest.raises(BrokerUnreachable, match="no broker lists its topic now"):  # which one that has just started may say, too
            await past.pages.read(absent, 0, 1)
        await gone_after(past.pages, absent, seconds=ABSENT_SECONDS)
        assert texts(await past.pages.read(past.key, 0, 1)) == ["x"]
        assert chats.topic("absent") not in broker.topics()


async def test_more_reads_than_readers_take_turns(broker, chats):
    topic = chats.topic("past")
    broker.create_topic(topic)
    broker.produce_many(topic, numbered(0, 2000), partition=0)
    async with reading(broker, chats, topic, readers=2) as past:
        threads = threading.active_count()
        found: dict[int, list[str]] = {}

        async def read(first: int) -> None:
            found[first] = texts(await past.pages.read(past.key, first, first + 50))

        async with trio.open_nursery() as nursery:
            for first in range(0, 2000, 50):
                nursery.start_soon(read, first)
        assert found == {first: [str(number) for number in range(first, first + 50)] for first in range(0, 2000, 50)}
        assert threading.active_count() <= threads + 3


async def test_a_read_that_is_cancelled_ends_within_a_second_and_harms_no_other(broker, chats):
    topic = chats.topic("past")
    broker.create_topic(topic)
    broker.produce_many(topic, numbered(0, 100), partition=0)
    async with reading(broker, chats, topic, readers=1) as past:
        for seconds in (0, 0.001, 0.005, 0.02, 0.3):
            began = trio.current_time()
            with trio.move_on_after(seconds), suppress(BrokerUnreachable):
                await past.pages.read(past.key, 100, 200)  # where nothing is yet
            assert trio.current_time() - began < 1
            assert texts(await past.pages.read(past.key, 10, 20)) == [str(number) for number in range(10, 20)]


async def test_what_is_below_the_first_offset_that_is_left_is_lost(kafka, chats):
    topic = chats.topic("past")
    kafka.create_topic(topic)
    kafka.produce_many(topic, numbered(0, 100), partition=0)
    kafka.delete_records(topic, 0, 60)
    async with reading(kafka, chats, topic) as past:
        with pytest.raises(PositionLost) as lost:
            await past.pages.read(past.key, 59, 80)
        assert (lost.value.asked, lost.value.first_left) == (59, 60)
        assert texts(await past.pages.read(past.key, 60, 62)) == ["60", "61"]


async def test_what_lies_beyond_the_end_is_for_asking_again(kafka, chats):
    topic = chats.topic("past")
    kafka.create_topic(topic)
    kafka.produce_many(topic, numbered(0, 10), partition=0)
    async with reading(kafka, chats, topic) as past:
        with pytest.raises(BrokerUnreachable):
            await past.pages.read(past.key, 50, 60)
        # Not "nothing came within 5 s": its leader has answered, and is not to be taken for silent.
        with pytest.raises(BrokerUnreachable, match="has no offset 10 now"):
            await past.pages.read(past.key, 10, 60)


async def test_transactions_are_read_as_committed_and_their_markers_are_moved_over(kafka, chats):
    topic = chats.topic("past")
    kafka.create_topic(topic)
    with kafka.transaction() as transaction:
        for number in range(3):
            transaction.produce(topic, message(f"committed {number}"), partition=0)
    aborted = kafka.transaction()
    for _ in range(3):
        aborted.produce(topic, message("aborted"), partition=0)
    aborted.abort()
    kafka.produce(topic, message("plain"), partition=0)  # at offset 8, after two markers
    end = kafka.transaction()
    end.produce(topic, message("aborted, too"), partition=0)
    end.abort()
    assert kafka.offsets(topic, 0).last_stable == 11
    async with reading(kafka, chats, topic) as past:
        for until in range(1, 12):
            page = await past.pages.read(past.key, 0, until)
            assert page.next == until
            assert texts(page) == [f"committed {number}" for number in range(min(until, 3))] + ["plain"] * (until > 8)
        for first in range(3, 11):  # from an offset where there is no record, too
            page = await past.pages.read(past.key, first, 11)
            assert (page.next, texts(page)) == (11, ["plain"] * (first <= 8))


async def test_holes_that_compaction_left_are_moved_over(kafka, chats):
    topic = chats.topic("past")
    kafka.create_topic(topic, cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio="0.0", max_compaction_lag_ms=100)
    for number in range(40):
        kafka.produce(topic, message(str(number)), key="same", partition=0)
    while len(kafka.records(topic)) > 5:
        kafka.produce(topic, message("last"), key="same", partition=0)
        await trio.sleep(0.3)
    left = kafka.records(topic)
    async with reading(kafka, chats, topic) as past:
        page = await past.pages.read(past.key, 0, left[-1].offset + 1)
        assert (page.first, page.next) == (0, left[-1].offset + 1)
        if left[0].offset > 2:
            hole = await past.pages.read(past.key, 0, 2)
            assert (hole.next, hole.messages) == (2, 0)


async def test_a_topic_made_anew_is_another_one_within_a_second(kafka, chats):
    topic = chats.topic("past")
    kafka.create_topic(topic)
    kafka.produce_many(topic, numbered(0, 10), partition=0)
    async with reading(kafka, chats, topic) as past:
        await past.pages.read(past.key, 0, 5)
        kafka.delete_topic(topic)
        second = kafka.create_topic(topic)
        kafka.produce_many(topic, numbered(100, 110), partition=0)
        await gone_after(past.pages, past.key, seconds=IDENTITY_SECONDS)
        page = await past.pages.read(past.key._replace(topic_id=second), 0, 5)
        assert texts(page) == ["100", "101", "102", "103", "104"]


class Remembering:
    """A Lookup that has described a topic within the last second, and not since."""

    def __init__(self, lookup: KafkaLookup, facts: TopicFacts) -> None:
        self._lookup = lookup
        self._facts = facts

    def described(self, topic: str, *, seconds: float) -> TopicFacts | None:
        return self._facts if seconds >= IDENTITY_SECONDS else None

    def __getattr__(self, name: str) -> object:
        return getattr(self._lookup, name)


@asynccontextmanager
async def described(kafka: Broker, chats: Chats, topic: str) -> AsyncIterator[Reading]:
    """Read a topic whose identity is believed for as long as it may be."""
    config = client_config(kafka)
    async with open_lookup(config) as lookup:
        facts = (await lookup.describe([topic]))[topic]
        remembering = cast("KafkaLookup", Remembering(lookup, facts))
        async with open_page_source(config, readers=1, names=ChatNames(chats.prefix), limits=Limits(), lookup=remembering) as pages:
            yield Reading(pages=pages, key=PartitionKey(topic, facts.topic_id, 0))


@pytest.mark.parametrize("is_known", [False, True])
async def test_no_page_has_records_of_a_topic_that_was_made_again_a_moment_ago(kafka, chats, is_known):
    topic = chats.topic("past")
    kafka.create_topic(topic)
    kafka.produce_many(topic, numbered(0, 100), partition=0)
    async with described(kafka, chats, topic) as past:
        if is_known:
            assert texts(await past.pages.read(past.key, 0, 2)) == ["0", "1"]
        await trio.to_thread.run_sync(kafka.delete_topic, topic)
        kafka.create_topic(topic)
        kafka.produce_many(topic, numbered(1000, 1100), partition=0)
        with pytest.raises(TopicGone):
            await past.pages.read(past.key, 20, 25)


async def test_a_read_of_a_topic_that_was_deleted_a_moment_ago_says_so_and_not_that_nothing_came(kafka, chats):
    topic = chats.topic("past")
    kafka.create_topic(topic)
    kafka.produce_many(topic, numbered(0, 10), partition=0)
    async with described(kafka, chats, topic) as past:
        await past.pages.read(past.key, 0, 5)
        await trio.to_thread.run_sync(kafka.delete_topic, topic)
        with pytest.raises(BrokerUnreachable, match="no broker lists its topic now"):
            await past.pages.read(past.key, 2, 7)
        await gone_after(past.pages, past.key, seconds=ABSENT_SECONDS)


async def test_pages_that_follow_each_other_have_every_record_once(kafka, chats):
    topic = chats.topic("past")
    kafka.create_topic(topic)
    kafka.produce_many(topic, numbered(0, 3000), partition=0)
    rng = random.Random(7)
    async with reading(kafka, chats, topic, readers=2) as past:
        found: dict[str, list[str]] = {"one": [], "two": []}
        places = {"one": 0, "two": 1000}
        end = 3000
        while places["one"] < end or places["two"] < end:
            for name, first in places.items():
                if first < end:
                    page = await past.pages.read(past.key, first, min(end, first + rng.randint(1, 700)))
                    assert page.first == first
                    found[name] += texts(page)
                    places[name] = page.next
            if end < 3600:  # the end of the log is met, and moves
                transaction = kafka.transaction()
                for text in numbered(end, end + 20):
                    transaction.produce(topic, text, partition=0)
                transaction.commit()
                end += 21  # and its marker
        assert past.pages.consumers == 2
    offsets = [n for n in range(end) if n < 3000 or (n - 3000) % 21 != 20]
    expected = [str(n) if n < 3000 else str(3000 + 21 * ((n - 3000) // 21) + (n - 3000) % 21) for n in offsets]
    assert found["one"] == expected
    assert found["two"] == expected[1000:]


async def test_without_brokers_reads_end_in_time_and_go_on_once_they_are_back(chats):
    with kafka_cluster() as cluster:
        topic = chats.topic("past")
        cluster.create_topic(topic)
        cluster.produce_many(topic, numbered(0, 100), partition=0)
        async with nothing_left(brokers=cluster.bootstrap):
            async with reading(cluster, chats, topic, readers=2) as past:
                await past.pages.read(past.key, 0, 50)
                cluster.freeze()
                began = trio.current_time()
                with pytest.raises(BrokerUnreachable):
                    await past.pages.read(past.key, 0, 50)
                assert trio.current_time() - began < 6
                began = trio.current_time()
                with trio.move_on_after(0.5):
                    await past.pages.read(past.key, 0, 50)
                assert trio.current_time() - began < 1.5
                cluster.thaw()
                with trio.fail_after(HANG_SECONDS):
                    while True:
                        try:
                            page = await past.pages.read(past.key, 0, 50)
                            break
                        except BrokerUnreachable:
                            continue
                assert texts(page) == [str(number) for number in range(50)]
                cluster.kill()
                with pytest.raises(BrokerUnreachable):
                    await past.pages.read(past.key, 20, 100)
                began = trio.current_time()
            assert trio.current_time() - began < 1


async def test_a_consumer_that_nobody_needs_is_closed(embedded, chats):
    topic = chats.topic("past")
    embedded.create_topic(topic)
    embedded.produce(topic, message("x"), partition=0)
    async with reading(embedded, chats, topic, idle_seconds=0.3) as past:
        threads = len(os.listdir("/proc/self/task"))
        await past.pages.read(past.key, 0, 1)
        assert len(os.listdir("/proc/self/task")) > threads
        await until(lambda: not past.pages.consumers)
        assert texts(await past.pages.read(past.key, 0, 1)) == ["x"]
