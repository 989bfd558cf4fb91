"""A client's pending questions to brokers go when the client goes, however long the brokers are away."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.resume_cursor import parse
from kafka_chat.delivery.audience.offset_queries import LATEST_TIMESTAMP, OffsetQueries
from kafka_chat.delivery.audience.wanted_start import EARLIEST, Since
from kafka_chat.delivery.history.query import PageQuery
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from tests.support.fake_topics import FakeKafka, value
from tests.support.fakes import FakeClient, open_core

GLOBAL = "kafka.chat.global"
CLIENTS = 50
V1 = SessionOptions(format=Format.V1)
WAYS = {
    "from the earliest": replace(V1, start=EARLIEST),
    "from a time": replace(V1, start=Since(1_000)),
    "up to a time": replace(V1, until_ms=1_000),
    "a time each": None,
}


@pytest.mark.parametrize("way", WAYS)
async def test_clients_that_come_and_go_while_brokers_are_away_leave_no_question(autojump_clock, way):
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=3)
        core.kafka.produce(GLOBAL, value("hello"), time_ms=2_000)
        canary = FakeClient()
        async with core.connected(FakeClient()):  # so that the topic is followed when the brokers go
            await wait_all_tasks_blocked()
            core.kafka.away = True
            async with core.connected(canary, options=replace(V1, start=EARLIEST)):
                of_the_canary = len(core.context.offsets)
                assert of_the_canary == 3
                for number in range(CLIENTS):
                    options = WAYS[way] or replace(V1, start=Since(1_000 * number), until_ms=1_000 * number)
                    async with core.connected(FakeClient(), options=options):
                        assert len(core.context.offsets) > of_the_canary
                assert len(core.context.offsets) == of_the_canary
                core.kafka.away = False
                await trio.sleep(10)
                assert [frame["text"] for frame in canary.deliveries if "text" in frame] == ["hello"]
                assert len(core.context.offsets) == 0


async def test_a_client_that_stands_beyond_the_end_asks_once(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("one"), value("two"))
        async with core.connected(first := FakeClient(), options=V1):
            await wait_all_tasks_blocked()
            meta = first.deliveries[0]["meta"]
            cursor = parse(meta["cursor"])  # type: ignore[index]
        async with core.connected(FakeClient()):
            await wait_all_tasks_blocked()
            core.audience.followed.position_lost(core.kafka.key(GLOBAL), 2, 0, LossCause.TRUNCATED)  # its log lost its end
            core.kafka.away = True
            async with core.connected(FakeClient(), options=replace(V1, cursor=cursor)):
                await trio.sleep(60)
                assert len(core.context.offsets) == 1
            await wait_all_tasks_blocked()
            assert len(core.context.offsets) == 0


async def test_requests_for_history_that_are_cancelled_leave_no_question(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=3)
        core.kafka.produce(GLOBAL, value("hello"))
        async with core.connected(FakeClient()):
            await wait_all_tasks_blocked()
            core.kafka.away = True
            for _ in range(CLIENTS):
                with trio.move_on_after(0.5):
                    await core.history.page(PageQuery(chat="global", rewind=10))
            assert len(core.context.offsets) == 0


async def test_a_withdrawn_question_is_not_answered_and_does_not_disturb_others():
    kafka, told = FakeKafka(), []
    kafka.create(GLOBAL, partitions=2)
    queries = OffsetQueries(kafka)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queries.run)
        questions = [
            queries.put(kafka.key(GLOBAL, number % 2), LATEST_TIMESTAMP, lambda _, n=number: told.append(n)) for number in range(8)
        ]
        await trio.lowlevel.checkpoint()  # these are under way
        questions += [queries.put(kafka.key(GLOBAL), LATEST_TIMESTAMP, lambda _, n=number: told.append(n)) for number in range(8, 10)]
        for number in (0, 1, 9):
            assert questions[number].open
            questions[number].withdraw()
            questions[number].withdraw()
            assert not questions[number].open
        await wait_all_tasks_blocked()
        assert len(queries) == 0
        nursery.cancel_scope.cancel()
    assert sorted(told) == [2, 3, 4, 5, 6, 7, 8]


async def test_a_partition_that_nobody_follows_any_more_is_asked_for_no_longer(autojump_clock):
    kafka, told = FakeKafka(), []
    kafka.create(GLOBAL, partitions=2)
    queries = OffsetQueries(kafka)
    left, followed = kafka.key(GLOBAL, 0), kafka.key(GLOBAL, 1)
    async with trio.open_nursery() as nursery:
        kafka.away = True
        nursery.start_soon(queries.run)
        for key in (left, followed):
            queries.put(key, LATEST_TIMESTAMP, lambda _, key=key: told.append(key))
            queries.put(key, 1_000, lambda _, key=key: told.append(key))
        await trio.sleep(0.5)  # they are asked, and wait to be asked again
        queries.put(left, LATEST_TIMESTAMP, lambda _: told.append(left))
        assert len(queries) == 5
        queries.forget(left)
        assert len(queries) == 2
        kafka.away = False
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert told == [followed, followed]
