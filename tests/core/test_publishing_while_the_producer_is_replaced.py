"""A record never goes to a producer that the polling thread is ending, at whatever moment it is replaced."""

from __future__ import annotations

import threading

import pytest
import trio
from confluent_kafka import KafkaError, KafkaException

from kafka_chat.delivery.ports import KeyedRecord, Published
from kafka_chat.errors import BrokerError
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.publish import KafkaPublisher
from kafka_chat.settings.model import KafkaSettings

WAIT_SECONDS = 30.0  # for what has to come
LOOK_SECONDS = 0.3  # for what may not come
RECORD = KeyedRecord(b"key", b"value")


class SlowProducer:
    """A producer that takes its time for what it is handed, and tells whether it was ended meanwhile."""

    def __init__(self, made: list[SlowProducer], others: threading.Event) -> None:
        self.ended = threading.Event()
        self.used_when_ended = False
        self.failing = threading.Event()
        self.others = others  # set once there is another one
        self.slow = False
        self.refusal: KafkaError | None = None  # of whatever it is handed
        self._callbacks: list = []
        made.append(self)
        if len(made) > 1:
            others.set()

    def poll(self, seconds: float) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self.refusal, _Message())
        if self.failing.wait(min(seconds, 0.01)) and not self.ended.is_set():
            raise KafkaException(KafkaError(KafkaError._FATAL, "lost its sequence", True))  # noqa: FBT003 - theirs

    def produce_batch(self, topic: str, records: list, partition: int) -> None:
        if self.slow:
            self.failing.set()  # the polling thread finds out now
            assert self.others.wait(WAIT_SECONDS)
            self.ended.wait(LOOK_SECONDS)
        self.used_when_ended |= self.ended.is_set()
        self._callbacks += [record["callback"] for record in records]

    def flush(self, seconds: float) -> None:
        self.ended.set()
        self.poll(0)

    def purge(self) -> None:
        self.ended.set()

    def close(self) -> None:
        self.ended.set()


class _Message:
    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7


async def test_a_producer_that_is_being_given_records_is_not_ended_before_it_has_them() -> None:
    made: list[SlowProducer] = []
    another = threading.Event()
    config = ClientConfig(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    publisher = KafkaPublisher(config, make=lambda _: SlowProducer(made, another))  # type: ignore[arg-type,return-value]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        try:
            with trio.fail_after(WAIT_SECONDS):
                assert await publisher.publish("topic", RECORD) == Published("topic", 0, 7)
                made[0].slow = True
                await publisher.publish("topic", RECORD)  # the old one still acknowledges what it was given
                assert await publisher.publish("topic", RECORD) == Published("topic", 0, 7)
        finally:
            publisher.close()
    assert [producer.used_when_ended for producer in made] == [False, False]
    assert all(producer.ended.is_set() for producer in made)


async def test_what_comes_after_the_producer_is_closed_is_told_to_come_again() -> None:
    made: list[SlowProducer] = []
    config = ClientConfig(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    publisher = KafkaPublisher(config, make=lambda _: SlowProducer(made, threading.Event()))  # type: ignore[arg-type,return-value]
    publisher.close()
    await publisher.run()
    with pytest.raises(BrokerError, match="try again later"):
        await publisher.publish("topic", RECORD)
    assert not made[0].used_when_ended


@pytest.mark.promise("p-may-be-written")
@pytest.mark.parametrize(
    ("code", "known"),
    [
        (KafkaError._MSG_TIMED_OUT, False),
        (KafkaError._PURGE_INFLIGHT, False),
        (KafkaError.REQUEST_TIMED_OUT, False),
        (KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, False),
        (KafkaError._PURGE_QUEUE, True),
        (KafkaError.NOT_ENOUGH_REPLICAS, True),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, True),
    ],
)
async def test_a_refusal_says_where_nobody_knows_whether_the_record_is_written(code: int, *, known: bool) -> None:
    made: list[SlowProducer] = []
    config = ClientConfig(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    publisher = KafkaPublisher(config, make=lambda _: SlowProducer(made, threading.Event()))  # type: ignore[arg-type,return-value]
    made[0].refusal = KafkaError(code)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        try:
            with trio.fail_after(WAIT_SECONDS), pytest.raises(BrokerError) as refused:
                await publisher.publish("topic", RECORD)
        finally:
            publisher.close()
    assert str(refused.value).endswith("it may or may not have been written") is not known
