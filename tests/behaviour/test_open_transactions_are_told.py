"""A partition that an open transaction blocks is reported, with the offset, until the transaction ends; then everything is delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kafka_chat.chat.partition_key import PartitionKey
from tests.support.calls import until
from tests.support.chats import message
from tests.support.tails import following

if TYPE_CHECKING:
    from tests.support.brokers import KafkaCluster
    from tests.support.chats import Chats


async def test_a_producer_that_does_not_commit_is_found_and_no_other_partition_is_named(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("held")
    identity = kafka.create_topic(topic, partitions=2)
    kafka.produce_many(topic, [message("before")] * 3, partition=0)
    async with following(kafka, chats, topic, held_seconds=2) as following_:
        tail, told = following_.tail, following_.told
        await told.opened(topic)
        with kafka.transaction() as transaction:
            transaction.produce(topic, message("within"), partition=0)
            kafka.produce(topic, message("behind"), partition=0)
            kafka.produce(topic, message("beside"), partition=1)
            await until(lambda: bool(tail.held))
            assert tail.held == {PartitionKey(topic, identity, 0): 3}
            assert told.texts(topic) == ["beside"]
        await told.until(lambda: len(told.texts(topic)) == 3)
        assert told.texts(topic)[1:] == ["within", "behind"]
        await until(lambda: not tail.held)


async def test_transactions_that_end_are_not_told_of_however_many_there_are(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("busy")
    kafka.create_topic(topic)
    async with following(kafka, chats, topic, held_seconds=1.5) as following_:
        tail, told = following_.tail, following_.told
        await told.opened(topic)
        for number in range(8):
            with kafka.transaction() as transaction:
                transaction.produce(topic, message(str(number)), partition=0)
                await told.until(lambda number=number: len(told.texts(topic)) == number)
            assert not tail.held
        await told.until(lambda: len(told.texts(topic)) == 8)
