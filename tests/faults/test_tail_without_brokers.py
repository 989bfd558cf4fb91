"""A Tail whose brokers are killed, hang, have not started yet, or lose a leader."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
import trio

from kafka_chat.delivery.timeouts import BrokerTimeouts
from kafka_chat.errors import BrokerUnreachable
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.poller import Poller
from kafka_chat.settings.model import KafkaSettings
from tests.support.calls import until
from tests.support.chats import message
from tests.support.deadlines import HANG_SECONDS
from tests.support.leaks import nothing_left
from tests.support.tails import Appended, Missing, following

if TYPE_CHECKING:
    from collections.abc import Callable


def numbered(begin: int, end: int) -> list[bytes]:
    return [message(str(number)) for number in range(begin, end)]


async def test_a_killed_broker_is_a_problem_while_it_is_away_and_nothing_is_lost_or_doubled(hanging, chats, caplog):
    caplog.set_level(logging.DEBUG)
    topic = chats.topic("steady")
    hanging.create_topic(topic)
    async with following(hanging, chats, topic) as following_:
        tail, told, noted = following_.tail, following_.told, following_.noted
        await told.opened(topic)
        hanging.produce_many(topic, numbered(0, 100), partition=0)
        await told.until(lambda: len(told.texts(topic)) == 100)
        hanging.kill()
        await until(lambda: tail.problem is not None)
        assert "Connection refused" in tail.problem or "closed by peer" in tail.problem
        assert noted.brokers == ["away"]
        spent = time.process_time()
        await trio.sleep(3)
        assert time.process_time() - spent < 1, "it polls busily"
        await trio.to_thread.run_sync(hanging.start)
        await until(lambda: tail.problem is None)
        assert noted.brokers == ["away", "back"]
        await trio.to_thread.run_sync(hanging.produce_many, topic, numbered(100, 200))
        with trio.fail_after(HANG_SECONDS):
            await told.until(lambda: len(told.texts(topic)) == 200)
        assert told.texts(topic) == [str(number) for number in range(200)]
        assert not noted.lost
        assert trio.current_time() - tail.last_round < 3
    lines = [record for record in caplog.records if record.name.startswith("kafka_chat")]
    assert len(lines) < 20, [record.getMessage() for record in lines]


async def test_what_is_requested_while_the_brokers_are_away_is_followed_once_they_are_there(hanging, chats):
    topic, other = chats.topic("there"), chats.topic("not")
    hanging.create_topic(topic)
    hanging.produce_many(topic, numbered(0, 3), partition=0)
    hanging.kill()
    async with following(hanging, chats, topic, other) as following_:
        tail, told = following_.tail, following_.told
        await until(lambda: tail.problem is not None)
        await trio.to_thread.run_sync(hanging.start)
        with trio.fail_after(HANG_SECONDS):
            await told.opened(topic)
            await told.until(lambda: bool(told.of(Missing, other)))
        await until(lambda: tail.problem is None)
        await trio.to_thread.run_sync(hanging.produce, topic, message("hello"))
        with trio.fail_after(HANG_SECONDS):
            await told.until(lambda: bool(told.texts(topic)))
        assert told.texts(topic) == ["hello"]


async def test_a_tail_ends_within_a_second_whatever_the_brokers_do(hanging, chats):
    topic = chats.topic("ends")
    hanging.create_topic(topic)

    async def seconds_to_end(break_it: Callable[[], None]) -> float:
        async with following(hanging, chats, topic, chats.topic("absent")) as following_:
            await following_.told.opened(topic)
            hanging.produce(topic, message("x"))
            await following_.told.until(lambda: bool(following_.told.texts(topic)))
            break_it()
            following_.tail.follow(chats.topic("another"))
            await trio.sleep(1.5)  # whatever it asks meanwhile gets no answer
            began = trio.current_time()
        return trio.current_time() - began

    # Once before counting, for what is made once a process.
    assert await seconds_to_end(lambda: None) < 1
    async with nothing_left(brokers=hanging.bootstrap):
        assert await seconds_to_end(lambda: None) < 1
        assert await seconds_to_end(hanging.freeze) < 1
        hanging.thaw()
        assert await seconds_to_end(hanging.kill) < 1
        await trio.to_thread.run_sync(hanging.start)


async def test_a_broker_that_hangs_is_a_problem_and_the_tail_goes_on_when_it_does(hanging, chats):
    topic = chats.topic("hangs")
    hanging.create_topic(topic)
    async with following(hanging, chats, topic) as following_:
        tail, told = following_.tail, following_.told
        await told.opened(topic)
        hanging.produce_many(topic, numbered(0, 10), partition=0)
        await told.until(lambda: len(told.texts(topic)) == 10)
        hanging.freeze()
        await until(lambda: tail.problem is not None)
        hanging.thaw()
        await until(lambda: tail.problem is None)
        await trio.to_thread.run_sync(hanging.produce_many, topic, numbered(10, 20))
        with trio.fail_after(HANG_SECONDS):
            await told.until(lambda: len(told.texts(topic)) == 20)
        assert told.texts(topic) == [str(number) for number in range(20)]


async def test_a_bug_in_the_listener_ends_the_tail(hanging, chats):
    topic = chats.topic("bug")
    hanging.create_topic(topic)

    def fail(event: object) -> None:
        if isinstance(event, Appended):
            raise ZeroDivisionError("a bug")

    async def follow_until_it_fails() -> None:
        async with following(hanging, chats, topic) as following_:
            following_.told.during = fail
            await following_.told.opened(topic)
            hanging.produce(topic, message("x"))
            await trio.sleep_forever()

    with pytest.raises(ZeroDivisionError):
        await follow_until_it_fails()
    assert "kafka_chat tail" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.deadline(240)
@pytest.mark.promise("p-leaderless")
async def test_a_partition_without_a_leader_is_named_and_is_no_problem(three_brokers, chats):
    topic, late, steady = chats.topic("wide"), chats.topic("late"), chats.topic("steady")
    await trio.to_thread.run_sync(lambda: three_brokers.create_topic(steady, 3, replication=3))
    await trio.to_thread.run_sync(lambda: three_brokers.create_topic(topic, 3, replication=1))
    await trio.to_thread.run_sync(lambda: three_brokers.create_topic(late, 3, replication=1))
    async with following(three_brokers, chats, topic, steady) as following_:
        tail, told = following_.tail, following_.told
        await told.opened(topic)
        await told.opened(steady)
        for partition in range(3):
            three_brokers.produce_many(steady, numbered(0, 50), partition=partition)
        leaders = {partition: three_brokers.leader(topic, partition) for partition in range(3)}
        late_leaders = {partition: three_brokers.leader(late, partition) for partition in range(3)}
        dead = leaders[1]
        three_brokers.kill(dead)
        lost = frozenset(partition for partition in range(3) if leaders[partition] == dead)
        await until(lambda: tail.leaderless == {topic: lost})
        await until(lambda: tail.problem is None)
        for partition in {0, 1, 2} - lost:
            await trio.to_thread.run_sync(lambda partition=partition: three_brokers.produce(topic, message("on"), partition=partition))
            await told.until(lambda partition=partition: told.texts(topic, partition) == ["on"])

        # What has replicas goes on with those, and nothing is lost or comes twice.
        for partition in range(3):
            await trio.to_thread.run_sync(
                lambda partition=partition: three_brokers.produce_many(steady, numbered(50, 100), partition=partition)
            )
            await told.until(lambda partition=partition: len(told.texts(steady, partition)) >= 100)
            assert told.texts(steady, partition) == [str(number) for number in range(100)]

        # A topic that is requested now is opened as far as it has leaders, and the rest of it once it has.
        tail.follow(late)
        absent = {partition for partition in range(3) if late_leaders[partition] == dead}
        assert set((await told.opened(late)).starts) == {0, 1, 2} - absent

        await trio.to_thread.run_sync(three_brokers.start, dead)
        await until(lambda: tail.leaderless == {})
        with trio.fail_after(HANG_SECONDS):
            rest = await told.opened(late, 2)
        assert set(rest.starts) == absent
        assert not rest.created
        for name, partitions in ((topic, lost), (late, absent)):
            for partition in partitions:
                await trio.to_thread.run_sync(
                    lambda name=name, partition=partition: three_brokers.produce(name, message("again"), partition=partition)
                )
                with trio.fail_after(HANG_SECONDS):
                    await told.until(lambda name=name, partition=partition: told.texts(name, partition) == ["again"])


class Unsteady:
    """A lookup of whose pings each third is answered, and nothing else; as where the name that a broker goes by does not resolve."""

    def __init__(self) -> None:
        self.pings = 0
        self.resolves = False
        self.timeouts = BrokerTimeouts()

    def by_leader(self, keys):
        return {1: keys}

    def reasons(self) -> str:
        return ""

    def forget_reasons(self) -> None:
        pass

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()
        self.pings += 1
        if self.pings % 3 and not self.resolves:
            raise BrokerUnreachable("asking for the topics failed")

    async def describe(self, topics):
        await trio.lowlevel.checkpoint()
        if not self.resolves:
            raise BrokerUnreachable("describing them failed: the name does not resolve")
        return {}

    async def log_ends(self, keys):
        await trio.lowlevel.checkpoint()
        return {}

    last_stable_offsets = high_watermarks = log_ends


async def test_brokers_that_answer_a_ping_now_and_then_are_away_until_they_answer_all(embedded, chats):
    lookup = Unsteady()
    async with following(embedded, chats, chats.topic("a"), lookup=lookup) as following_:
        tail, noted = following_.tail, following_.noted
        await until(lambda: lookup.pings >= 8)
        assert noted.brokers == ["away"]
        assert tail.problem
        lookup.resolves = True
        await until(lambda: tail.problem is None)
        assert noted.brokers == ["away", "back"]


async def test_connections_that_fail_without_a_pause_are_told_once_in_a_round_of_the_loop():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        properties = {"reconnect.backoff.ms": "0", "reconnect.backoff.max.ms": "0"}
        config = ClientConfig(KafkaSettings(bootstrap_servers=f"127.0.0.1:{nobody.getsockname()[1]}", properties=properties))
        told: list[None] = []
        poller = Poller(config, deliver=lambda _: None, trouble=lambda: told.append(None), message_bytes=1_000_000)
        async with trio.open_nursery() as nursery:
            await nursery.start(poller.run)
            await until(lambda: len(told) > 3)
            rounds, before = poller.rounds, len(told)
            with trio.fail_after(HANG_SECONDS):
                while poller.rounds < rounds + 20:
                    time.sleep(0.01)  # noqa: ASYNC251 - the loop is held up, and the thread goes on
                await trio.lowlevel.checkpoint()
            assert len(told) - before <= 2
            nursery.cancel_scope.cancel()
