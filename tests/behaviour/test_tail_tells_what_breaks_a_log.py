"""What a Tail reports when topics are deleted, recreated, extended, truncated, or written in transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from confluent_kafka.admin import NewTopic

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.chat.resume_cursor import NO_EPOCH
from kafka_chat.kafka.lookup import LogEnd, open_lookup
from tests.support.chats import message
from tests.support.deadlines import HANG_SECONDS
from tests.support.tails import Appended, Gone, Jumped, Missing, Opened, client_config, following

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kafka_chat.kafka.lookup import KafkaLookup


def numbered(begin: int, end: int) -> list[bytes]:
    return [message(str(number)) for number in range(begin, end)]


async def test_a_partition_that_is_added_is_opened_at_zero(kafka, chats):
    topic = chats.topic("grows")
    topic_id = kafka.create_topic(topic)
    async with following(kafka, chats, topic) as following_:
        told = following_.told
        await told.opened(topic)
        kafka.add_partitions(topic, 3)
        kafka.produce(topic, message("in a new one"), partition=2)
        with trio.fail_after(HANG_SECONDS):
            await told.until(lambda: bool(told.texts(topic, 2)))
        kafka.produce(topic, message("in the old one"), partition=0)
        await told.until(lambda: bool(told.texts(topic, 0)))
        assert told.of(Opened, topic) == [
            Opened(topic, topic_id, {0: 0}, created=False),
            Opened(topic, topic_id, {1: 0, 2: 0}, created=True),
        ]


async def test_a_deleted_topic_is_lost_and_opened_at_zero_when_there_is_a_new_one(kafka, chats):
    topic = chats.topic("gone")
    first = kafka.create_topic(topic)
    kafka.produce_many(topic, numbered(0, 10), partition=0)
    async with following(kafka, chats, topic) as following_:
        told = following_.told
        await told.opened(topic)
        kafka.produce(topic, message("last"), partition=0)
        await told.until(lambda: bool(told.texts(topic)))
        kafka.delete_topic(topic)
        with trio.fail_after(HANG_SECONDS):
            await told.until(lambda: bool(told.of(Gone, topic)))
        assert told.of(Gone, topic) == [Gone(topic, first, None)]
        assert following_.noted.lost == [(topic, 0, 11, 0, LossCause.RECREATED)]
        second = kafka.create_topic(topic, 2)
        kafka.produce(topic, message("anew"), partition=1)
        with trio.fail_after(HANG_SECONDS):
            await told.until(lambda: len(told.texts(topic)) == 2)
        assert told.of(Opened, topic)[1:] == [Opened(topic, second, {0: 0, 1: 0}, created=True)]
        assert told.texts(topic) == ["last", "anew"]
        assert not told.of(Missing, topic)


async def made_anew_with(kafka, chats, count: int) -> None:
    """Recreate a topic between two looks, with a different number of records than the Tail has read."""
    topic = chats.topic("anew")
    first = kafka.create_topic(topic)
    kafka.produce_many(topic, numbered(0, 20), partition=0)
    async with following(kafka, chats, topic) as following_:
        told = following_.told
        assert (await told.opened(topic)).starts == {0: 20}
        # Deleted and made in one step for the Tail: the trio loop stands still meanwhile.
        kafka.delete_topic(topic)
        second = kafka.create_topic(topic)
        kafka.produce_many(topic, numbered(100, 100 + count), partition=0)
        with trio.fail_after(HANG_SECONDS):
            await told.opened(topic, 2)
        kafka.produce(topic, message("end"), partition=0)
        with trio.fail_after(HANG_SECONDS):
            await told.until(lambda: told.texts(topic)[-1:] == ["end"])
        assert told.of(Gone, topic) == [Gone(topic, first, LossCause.RECREATED)]
        assert told.of(Opened, topic)[1:] == [Opened(topic, second, {0: 0}, created=True)]
        whole = [*(str(number) for number in range(100, 100 + count)), "end"]
        assert told.texts(topic) == whole
        assert following_.noted.lost == [(topic, 0, 20, 0, LossCause.RECREATED)]


async def test_a_topic_made_anew_that_is_shorter_is_read_from_its_beginning(kafka, chats):
    await made_anew_with(kafka, chats, 5)


async def test_a_topic_made_anew_that_is_longer_is_read_from_its_beginning(kafka, chats):
    await made_anew_with(kafka, chats, 60)


async def test_a_position_that_retention_took_is_told_and_reading_goes_on_at_what_is_left(kafka, chats):
    topic = chats.topic("old")
    kafka.create_topic(topic)
    kafka.produce_many(topic, numbered(0, 10), partition=0)
    async with following(kafka, chats) as following_:
        told = following_.told

        def cut_off(event: object) -> None:
            # Told where the log begins, but not yet reading there: so the position is gone when it does.
            if isinstance(event, Opened):
                kafka.produce_many(topic, numbered(10, 30), partition=0)
                kafka.delete_records(topic, 0, 25)

        told.during = cut_off
        following_.tail.follow(topic)
        await told.until(lambda: len(told.texts(topic)) >= 5)
        kafka.produce(topic, message("30"), partition=0)
        await told.until(lambda: len(told.texts(topic)) >= 6)
        (jumped,) = told.of(Jumped, topic)
        assert jumped[1:] == (10, 25, LossCause.RETENTION)
        assert told.texts(topic) == [str(number) for number in range(25, 31)]
        assert following_.noted.lost == [(topic, 0, 10, 25, LossCause.RETENTION)]


class TruncatedLookup:
    """Answers as before an unclean election: the first end that it tells is beyond the one that is left."""

    def __init__(self, lookup: KafkaLookup, lost: int) -> None:
        self._lookup = lookup
        self._lost = lost
        self.found_shorter = trio.Event()
        self.timeouts = lookup.timeouts
        self.by_leader = lookup.by_leader
        self.ping = lookup.ping
        self.forget_reasons = lookup.forget_reasons
        self.cluster_id = lookup.cluster_id
        self.describe = lookup.describe
        self.first_offsets = lookup.first_offsets
        self.high_watermarks = lookup.high_watermarks

    async def log_ends(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, LogEnd]:
        found = await self._lookup.log_ends(keys)
        if not found:
            return found
        if not self._lost:
            self.found_shorter.set()
        lost, self._lost = self._lost, 0
        return {key: LogEnd(end.offset + lost, NO_EPOCH) for key, end in found.items()}


async def test_a_position_beyond_the_end_is_told_as_truncated_after_five_seconds(kafka, chats):
    topic = chats.topic("truncated")
    kafka.create_topic(topic)
    kafka.produce_many(topic, numbered(0, 10), partition=0)
    async with open_lookup(client_config(kafka)) as lookup, following(kafka, chats, topic, lookup=TruncatedLookup(lookup, 7)) as following_:
        told = following_.told
        assert (await told.opened(topic)).starts == {0: 17}
        opened = trio.current_time()
        await told.until(lambda: bool(told.of(Jumped, topic)))
        assert 4.5 < trio.current_time() - opened < 8
        (jumped,) = told.of(Jumped, topic)
        assert jumped[1:] == (17, 10, LossCause.TRUNCATED)
        kafka.produce(topic, message("on"), partition=0)
        await told.until(lambda: bool(told.texts(topic)))
        assert told.texts(topic) == ["on"]


async def test_a_position_beyond_the_end_for_a_moment_loses_nothing(kafka, chats):
    topic = chats.topic("behind")
    kafka.create_topic(topic)
    async with (
        open_lookup(client_config(kafka)) as lookup,
        following(kafka, chats, topic, lookup=(truncated := TruncatedLookup(lookup, 7))) as following_,
    ):
        told = following_.told
        assert (await told.opened(topic)).starts == {0: 7}
        await truncated.found_shorter.wait()
        kafka.produce_many(topic, numbered(0, 9), partition=0)
        await told.until(lambda: len(told.texts(topic)) == 2)
        assert told.texts(topic) == ["7", "8"]
        assert not told.of(Jumped, topic)


async def test_an_open_transaction_is_followed_from_below_and_only_what_is_committed_is_appended(kafka, chats):
    topic = chats.topic("transactions")
    kafka.create_topic(topic)
    kafka.produce(topic, message("before"), partition=0)
    open_one = kafka.transaction()
    open_one.produce(topic, message("committed"), partition=0)
    async with following(kafka, chats, topic) as following_:
        told = following_.told
        assert (await told.opened(topic)).starts == {0: 1}
        kafka.produce(topic, message("plain"), partition=0)
        await trio.to_thread.run_sync(open_one.commit)
        aborted = kafka.transaction()
        aborted.produce(topic, message("aborted"), partition=0)
        await trio.to_thread.run_sync(aborted.abort)
        kafka.produce(topic, message("after"), partition=0)
        await told.until(lambda: told.texts(topic)[-1:] == ["after"])
        assert told.texts(topic) == ["committed", "plain", "after"]


async def test_a_log_moves_over_transaction_markers_behind_which_nothing_comes(kafka, chats):
    topic = chats.topic("markers")
    kafka.create_topic(topic)
    async with following(kafka, chats, topic) as following_:
        told = following_.told
        await told.opened(topic)
        with kafka.transaction() as transaction:
            transaction.produce(topic, message("committed"), partition=0)
        await told.until(lambda: told.position(topic) == 2)
        aborted = kafka.transaction()
        aborted.produce(topic, message("aborted"), partition=0)
        aborted.abort()
        assert kafka.offsets(topic, 0).last_stable == 4
        with trio.fail_after(3):
            await told.until(lambda: told.position(topic) == 4)
        assert told.texts(topic) == ["committed"]


async def test_five_hundred_topics_are_followed_at_once(kafka, chats):
    topics = [chats.topic(f"t{number}") for number in range(500)]
    for made in kafka._admin.create_topics([NewTopic(topic, 1) for topic in topics]).values():
        await trio.to_thread.run_sync(made.result)
    async with following(kafka, chats) as following_:
        told = following_.told
        while len(await following_.lookup.last_stable_offsets([PartitionKey(topic, "", 0) for topic in topics])) < 500:  # noqa: ASYNC110 - leaders come
            await trio.sleep(0.05)
        began = trio.current_time()
        for topic in topics:
            following_.tail.follow(topic)
        await told.until(lambda: len(told.positions) == 500)
        opened = trio.current_time()
        for topic in topics:
            kafka._producer.produce(topic, message("hello"), partition=0)
        await told.until(lambda: len([event for event in told.events if isinstance(event, Appended)]) >= 500)
        assert opened - began < 2
        for topic in topics:
            assert told.texts(topic) == ["hello"]
            following_.tail.unfollow(topic)
        last = chats.topic("last")
        kafka.create_topic(last)
        following_.tail.follow(last)
        await told.opened(last)
        assert following_.tail.problem is None
