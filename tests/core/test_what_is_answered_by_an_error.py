"""A broker that answers with an error, or not at all, delays only its own requests: not other reads, other partitions, or the end."""

from __future__ import annotations

import time

import pytest
import trio
from confluent_kafka import KafkaError, KafkaException
from trio.testing import MockClock

from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.delivery.audience.offset_queries import OffsetQueries
from kafka_chat.delivery.audience.starts import Starts
from kafka_chat.delivery.audience.wanted_start import Rewind
from kafka_chat.delivery.log.follower import Follower
from kafka_chat.delivery.log.memory import Memory
from kafka_chat.delivery.log.page_reads import PageReads, open_page_reads
from kafka_chat.delivery.log.partition_log import PartitionLog
from kafka_chat.delivery.records.batch import Batch
from kafka_chat.delivery.records.formats import PLAIN
from kafka_chat.delivery.timeouts import PING_SECONDS, BrokerTimeouts
from kafka_chat.errors import BrokerError, BrokerUnreachable
from kafka_chat.kafka.each_leader import ask_each_leader
from kafka_chat.kafka.listing import Listings
from kafka_chat.kafka.reasons import Reasons
from kafka_chat.telemetry.metrics import Telemetry

REFUSED, READ = PartitionKey("a", "ida", 0), PartitionKey("b", "idb", 0)


class OneLeader:
    """A source of pages that may not read one of two topics of the same leader."""

    timeouts = BrokerTimeouts()

    def leader(self, key: PartitionKey) -> int:
        return 1

    async def read(self, key: PartitionKey, first: int, until: int) -> Batch:
        await trio.sleep(0.002)
        if key == REFUSED:
            raise BrokerError("not authorized", topic=key.topic)
        return Batch.empty(key, first=first, next=until)


async def test_a_page_that_is_refused_keeps_no_other_page_of_its_leader_waiting(autojump_clock: MockClock) -> None:
    memory = Memory(10)  # keeps nothing
    refused, log = PartitionLog(REFUSED, 100_000, memory), PartitionLog(READ, 10_000_000, memory)
    async with open_page_reads(PageReads(OneLeader(), telemetry=Telemetry()), readers=2) as reads, trio.open_nursery() as nursery:
        nursery.start_soon(reads.fetch, refused, 5)
        await trio.sleep(0.1)
        position = pages = 0
        with trio.move_on_after(5.0):
            while True:
                position, pages = (await reads.fetch(log, position)).next, pages + 1
        nursery.cancel_scope.cancel()
    assert pages > 2_000  # 2 ms each; it was 10


class Owner:
    """Of a follower."""

    def take(self, *_: object) -> int:
        return 0

    def on_gap(self, *_: object) -> None:
        raise AssertionError

    def on_follow(self, _: object) -> None:
        """Nothing."""

    def on_unfollow(self, _: object) -> None:
        """Nothing."""


class AwayAtFirst:
    """A lookup whose brokers are away."""

    timeouts = BrokerTimeouts()
    there = False

    def by_leader(self, keys: list[PartitionKey]) -> dict[int, list[PartitionKey]]:
        return {key.partition: [key] for key in keys}

    async def offsets_at(self, keys: list[PartitionKey], _time_ms: int) -> dict[PartitionKey, int]:
        await trio.sleep(0.01)
        if not self.there:
            raise BrokerUnreachable("away")
        return dict.fromkeys(keys, 0)


async def test_a_rewind_begins_in_every_partition_though_one_was_lost_while_brokers_were_away(autojump_clock: MockClock) -> None:
    lookup, memory = AwayAtFirst(), Memory(1 << 20)
    queries = OffsetQueries(lookup)  # type: ignore[arg-type]
    starts = Starts(queries, memory, lambda _follower, _log: True)
    follower = Follower(Owner(), PLAIN, None)  # type: ignore[arg-type]
    logs = [PartitionLog(PartitionKey("t", "i", number), 0, memory) for number in (0, 1)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queries.run)
        nursery.start_soon(starts.run)
        starts.begin(follower, dict.fromkeys(logs, 0), Rewind(5, not_after_ms=123))
        await trio.sleep(0.3)
        starts.forget(logs[0].key)  # its position is lost, and it begins anew
        anew = PartitionLog(logs[0].key, 0, memory)
        starts.resolve(follower, anew.key)
        starts.begin(follower, {anew: 0}, Rewind(5, not_after_ms=123))
        lookup.there = True
        await trio.sleep(10)
        assert {key.partition for key in follower.cursors} == {0, 1}
        nursery.cancel_scope.cancel()


class StoppedOnce:
    """A Consumer that no broker answers, in a process that is stopped for a while within its first listing."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def list_topics(self, timeout: float) -> None:
        self.asked.append(timeout)
        if len(self.asked) == 1:
            time.sleep(PING_SECONDS + 0.2)
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))


async def test_a_listing_whose_time_is_over_is_not_waited_for_for_ever() -> None:
    consumer, timeouts = StoppedOnce(), BrokerTimeouts()
    timeouts.took(0.001)  # so that a listing has the least time that there is
    assert timeouts.ping_seconds == PING_SECONDS
    with pytest.raises(KafkaException):
        await trio.to_thread.run_sync(Listings(consumer, timeouts, Reasons()).of, None)  # type: ignore[arg-type]
    assert len(consumer.asked) > 1
    assert all(timeout > 0 for timeout in consumer.asked)


async def test_two_leaders_that_hang_are_an_error_not_an_empty_answer(autojump_clock: MockClock) -> None:
    async def ask(_keys: object) -> dict[PartitionKey, int]:
        await trio.sleep_forever()
        raise AssertionError

    keys = [PartitionKey("t", "i", number) for number in (0, 1)]
    with pytest.raises(BrokerUnreachable, match="no leader has answered"):
        await ask_each_leader(AwayAtFirst(), keys, ask)  # type: ignore[arg-type]
