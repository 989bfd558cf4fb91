"""`from` is an offset, `until` is each message's own time: on sockets, streams and pages, in whatever order timestamps are."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from tests.behaviour.test_history_is_read_by_pages import answered, page, texts, walk
from tests.support.brokers import Broker, KafkaCluster
from tests.support.calls import running, until
from tests.support.chats import Chats, message
from tests.support.clients import Answer
from tests.support.events_client import open_events
from tests.support.raw_produce import NO_TIME, RawRecord, produce_raw
from tests.support.v1_client import open_v1

HOUR_MS = 3_600_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def everywhere(url: str, user: str, **asked: Any) -> list[str]:
    """Return what each kind of reader gets of room1 up to the end; it is the same."""
    query = {"from" if name == "begin" else name: str(value) for name, value in asked.items()}
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_v1(url, user, ("chat", "room1"), *query.items()))
        closed = await client.closed()
        assert (closed.code, closed.reason) == (1000, "until is reached")
        found = [frame["text"] for frame in client.frames if "text" in frame]
    async with open_events(url, user, urlencode({"chat": "room1", **query})) as stream:
        events = await stream.read_to_end()
    assert events[-1].name == "end"
    assert [event.said["text"] for event in events if event.name == "message"] == found
    forward = await walk(url, "room1", limit=2, **asked)
    assert sorted(text for body in forward for text in texts(body)) == sorted(found)
    return found


@pytest.mark.promise("p-until-own-time")
async def test_a_record_ahead_of_its_time_hides_none_that_come_after_it(broker: Broker, chats: Chats) -> None:
    topic, now = chats.topic("room1"), now_ms()
    broker.create_topic(topic)
    for number, seconds in enumerate((-60, -50, 3500, -40, -30)):
        broker.produce(topic, message(str(number)), partition=0, timestamp_ms=now + seconds * 1000)
    async with running(chats.settings_for(broker)) as server:
        assert await everywhere(server.url, "ann", begin="earliest", until=now) == ["0", "1", "3", "4"]
        assert await everywhere(server.url, "ann", begin="earliest", until="-45s") == ["0", "1"]
        back = await walk(server.url, "room1", until=now, direction="backward", limit=3)
        assert [texts(body) for body in back] == [["1", "3", "4"], ["0"]]
        ahead = time.strftime("%Y-%m-%dT%H:%M:%S,123456789%z", time.gmtime(now / 1000 + 5)).replace("+0000", "+00:00")
        assert texts(await page(server.url, "room1", until=ahead)) == ["0", "1", "3", "4"]


@pytest.mark.promise("p-from-is-an-offset")
async def test_from_begins_at_the_first_record_of_that_time_and_goes_on_with_all_that_follow(kafka: KafkaCluster, chats: Chats) -> None:
    topic, now = chats.topic("room1"), now_ms()
    kafka.create_topic(topic)
    for number, seconds in enumerate((-60, -50, -10, -55, -9)):
        kafka.produce(topic, message(str(number)), partition=0, timestamp_ms=now + seconds * 1000)
    async with running(chats.settings_for(kafka)) as server:
        assert await everywhere(server.url, "ann", begin=now - 20_000, until=now) == ["2", "3", "4"]
        assert await everywhere(server.url, "ann", begin=now - 20_000, until=now - 20_000) == ["3"]


async def test_where_the_broker_sets_the_time_that_one_counts(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("room1")
    kafka.create_topic(topic, message_timestamp_type="LogAppendTime")
    for number in range(3):
        kafka.produce(topic, message(str(number)), partition=0, timestamp_ms=1_600_000_000_000 - number)
    between = now_ms() + 1
    await until(lambda: now_ms() > between)
    for number in range(3, 5):
        kafka.produce(topic, message(str(number)), partition=0, timestamp_ms=1_500_000_000_000)
    async with running(chats.settings_for(kafka)) as server:
        assert await everywhere(server.url, "ann", begin="earliest", until=between) == ["0", "1", "2"]
        assert await everywhere(server.url, "ann", begin=between, until=now_ms() + 1) == ["3", "4"]
        assert await everywhere(server.url, "ann", begin="earliest", until="2020-09-13T12:26:40Z") == []


@pytest.mark.promise("p-message-time")
async def test_where_the_broker_sets_the_time_live_messages_streams_and_pages_say_it_and_not_the_producers(
    kafka: KafkaCluster, chats: Chats
) -> None:
    topic, long_ago, hour = chats.topic("room1"), 1_500_000_000_000, 3600
    kafka.create_topic(topic)
    kafka.produce(topic, message("before"), partition=0, timestamp_ms=now_ms() + hour * 1000)  # the producer's time stays that record's
    kafka.set_config(topic, message_timestamp_type="LogAppendTime")
    async with running(chats.settings_for(kafka)) as server:
        began = now_ms()
        async with open_v1(server.url, "ann", ("chat", "room1")) as client:
            batch = [RawRecord(value=message(str(number)), time_ms=long_ago - number) for number in range(3)]
            produce_raw(kafka.bootstrap, topic, batch)  # one batch, which has one time then
            kafka.produce(topic, message("3"), partition=0, timestamp_ms=long_ago)
            assert await client.texts(4) == list("0123")
        times = [frame["meta"]["time"] for frame in client.frames if "text" in frame]
        assert times == sorted(times)
        assert times[0] == times[2]
        assert began - 1000 <= times[0] <= times[3] <= now_ms() + 1000
        past = (await page(server.url, "room1", limit=5))["messages"]
        assert {one["text"]: one["meta"]["time"] for one in past if one["text"] != "before"} == dict(zip("0123", times, strict=True))
        assert await everywhere(server.url, "ann", begin=times[0], until=times[3] + 1) == ["0", "1", "2", "3"]
        assert await everywhere(server.url, "ann", begin="earliest", until=times[3] + 1) == ["0", "1", "2", "3"]
        assert await everywhere(server.url, "ann", begin=long_ago - 10, until=long_ago + 10) == []


@pytest.mark.promise("p-until-own-time")
async def test_a_record_without_a_time_is_older_than_any(kafka: KafkaCluster, chats: Chats) -> None:
    topic, now = chats.topic("room1"), now_ms()
    kafka.create_topic(topic)
    for number, time_ms in enumerate((NO_TIME, now - 9000, NO_TIME, now - 1000, NO_TIME)):
        produce_raw(kafka.bootstrap, topic, [RawRecord(value=message(str(number)), time_ms=time_ms)])
    async with running(chats.settings_for(kafka)) as server:
        assert await everywhere(server.url, "ann", begin="earliest", until=now - 5000) == ["0", "1", "2", "4"]
        assert await everywhere(server.url, "ann", begin=now - 5000, until=now) == ["3", "4"]
        assert [one["meta"]["time"] for one in (await page(server.url, "room1"))["messages"]][::2] == [None, None, None]


@pytest.mark.parametrize("ahead_ms", [1000, HOUR_MS])
@pytest.mark.promise("p-from-is-now-at-most")
async def test_a_client_whose_clock_is_ahead_loses_nothing_that_is_written_from_its_request_on(
    kafka: KafkaCluster, chats: Chats, ahead_ms: int
) -> None:
    topic = chats.topic("room1")
    kafka.create_topic(topic)
    kafka.produce(topic, message("before"), partition=0, timestamp_ms=now_ms() - 5000)
    async with running(chats.settings_for(kafka)) as server, trio.open_nursery() as nursery:
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await answered(server.url, "room1", {"prefer": "wait=30"}, 60, begin=now_ms() + ahead_ms))

        nursery.start_soon(ask)
        await until(lambda: server.service.slots_taken == 1)
        kafka.produce(topic, message("news"), partition=0)
        await until(lambda: bool(answers))
        assert texts(answers[0].json()) == ["news"]  # type: ignore[arg-type]
        async with open_v1(server.url, "ann", ("chat", "room1"), ("from", str(now_ms() + ahead_ms))) as client:
            kafka.produce(topic, message("more"), partition=0)
            assert await client.texts(1) == ["more"]
