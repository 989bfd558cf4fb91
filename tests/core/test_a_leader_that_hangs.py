"""A leader that takes requests and does not answer delays readers of its partitions, and no others."""

from __future__ import annotations

from dataclasses import replace

import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.delivery.audience.offset_queries import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, OffsetQueries
from kafka_chat.delivery.audience.wanted_start import EARLIEST, Since
from kafka_chat.delivery.history.query import PageQuery
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from tests.support.calls import until
from tests.support.fake_topics import FakeKafka, value
from tests.support.fakes import FakeClient, open_core

HUNG, WELL = "kafka.chat.hung", "kafka.chat.well"
V1 = SessionOptions(format=Format.V1)


def with_a_hung_leader(*, partitions: int = 1) -> FakeKafka:
    """Return brokers of which the one that leads `HUNG` hangs."""
    kafka = FakeKafka()
    kafka.create(HUNG, partitions=partitions)
    kafka.create(WELL)
    kafka.leaders[HUNG] = 2
    kafka.hung = {2}
    return kafka


async def test_questions_about_its_partitions_delay_no_others_however_many_they_are(autojump_clock):
    kafka, told = with_a_hung_leader(partitions=3), []
    queries = OffsetQueries(kafka)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queries.run)
        for number in range(100):
            queries.put(kafka.key(HUNG, number % 3), 1000 * number, lambda _, n=number: told.append(n))
        await trio.sleep(0.1)
        began = trio.current_time()
        for time_ms in (LATEST_TIMESTAMP, EARLIEST_TIMESTAMP, 5, 1000):
            async with queries.ask([kafka.key(WELL)], time_ms) as answers:
                assert await answers.all() == {kafka.key(WELL): 0}
        assert trio.current_time() == began
        kafka.hung = set()
        await trio.sleep(60)
        assert sorted(told) == list(range(100))
        assert len(queries) == 0
        nursery.cancel_scope.cancel()


async def test_one_question_about_partitions_of_several_leaders_is_answered_a_leader_at_a_time(autojump_clock):
    kafka = with_a_hung_leader()
    queries = OffsetQueries(kafka)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queries.run)
        async with queries.ask([kafka.key(HUNG), kafka.key(WELL)], LATEST_TIMESTAMP) as answers:
            await wait_all_tasks_blocked()
            assert answers.told == {kafka.key(WELL): 0}
        assert len(queries) == 0
        nursery.cancel_scope.cancel()


async def test_an_end_is_never_that_of_a_request_that_was_under_way_when_it_was_asked_for(autojump_clock):
    kafka, told = FakeKafka(), []
    kafka.create(WELL)
    queries = OffsetQueries(kafka)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queries.run)
        queries.put(kafka.key(WELL), LATEST_TIMESTAMP, told.append)
        await wait_all_tasks_blocked()
        kafka.leaders[WELL] = 2
        kafka.hung = {2}
        queries.put(kafka.key(WELL), LATEST_TIMESTAMP, told.append)
        await trio.sleep(1)
        for _ in range(1000):  # which all are one request, once that is over
            queries.put(kafka.key(WELL), LATEST_TIMESTAMP, told.append)
        assert told == [0]
        kafka.produce(WELL, value("one"))
        kafka.hung = set()
        await trio.sleep(60)
        assert told == [0, *[1] * 1001]
        assert len(kafka.questions) == 3
        nursery.cancel_scope.cancel()


async def test_other_chats_begin_at_a_time_and_have_their_pages_at_once(autojump_clock):
    async with open_core() as core:
        core.kafka.create(HUNG)
        core.kafka.create(WELL)
        core.kafka.produce(WELL, value("hello"), time_ms=20_000)
        core.kafka.leaders[HUNG] = 2
        core.kafka.hung = {2}
        async with trio.open_nursery() as nursery:
            for number in range(20):
                options = replace(V1, chats=("hung",), start=Since(1_000 * number))
                await nursery.start(_connect, core, options)
            began = trio.current_time()
            client = FakeClient()
            async with core.connected(client, options=replace(V1, chats=("well",), start=Since(10_000))):
                await wait_all_tasks_blocked()
                assert [frame["text"] for frame in client.deliveries if "text" in frame] == ["hello"]
            page = await core.history.page(PageQuery(chat="well", rewind=10))
            assert len(page.messages) == 1
            assert trio.current_time() - began < 1
            nursery.cancel_scope.cancel()
        assert len(core.context.offsets) == 0


async def _connect(core, options, *, task_status):
    session = core.requested(options)
    with core.audience.joined(session, known=True):
        task_status.started()
        await trio.sleep_forever()


async def test_pages_of_its_partitions_take_no_reader_away_from_others(autojump_clock):
    async with open_core(readers=2, memory_bytes=1) as core:
        core.kafka.create(HUNG, partitions=20)
        core.kafka.create(WELL)
        core.kafka.leaders[HUNG] = 2
        for partition in range(20):
            core.kafka.produce(HUNG, *[value(str(number)) for number in range(50)], partition=partition)
        core.kafka.produce(WELL, *[value(str(number)) for number in range(50)])
        core.kafka.timeouts.took(0.001)
        core.kafka.hung_reads = {2}
        readers = [FakeClient() for _ in range(5)]
        async with trio.open_nursery() as nursery:
            for client in readers:
                nursery.start_soon(_stay, core, client, replace(V1, chats=("hung",), start=EARLIEST))
            await trio.sleep(10)
            assert core.reads.waiting > 2
            for _ in range(5):
                client, began = FakeClient(), trio.current_time()
                async with core.connected(client, options=replace(V1, chats=("well",), start=EARLIEST)):
                    await until(lambda client=client: len(_texts(client)) == 50)
                assert trio.current_time() - began < 1
            core.kafka.hung_reads = set()
            await until(lambda: all(len(_texts(client)) == 1000 for client in readers), seconds=30)
            assert core.reads.waiting == 0
            nursery.cancel_scope.cancel()


def _texts(client):
    return [frame["text"] for frame in client.deliveries if "text" in frame]


async def _stay(core, client, options):
    async with core.connected(client, options=options):
        await trio.sleep_forever()
