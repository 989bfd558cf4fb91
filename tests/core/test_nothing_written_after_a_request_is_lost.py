"""A record written after a request with a start time is delivered, however far the brokers are and whatever the time is."""

from __future__ import annotations

import json

import pytest
import trio

from kafka_chat.chat.names import ChatNames
from kafka_chat.chat.resume_cursor import parse
from kafka_chat.delivery.history.query import PageQuery
from kafka_chat.delivery.records.formats import Format
from kafka_chat.web.requests.parameters import Query, parse_options, start_of
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core

ROOM = "kafka.chat.room"
NOW = 1_764_064_800_000
WRITTEN_AFTER_SECONDS = (0.001, 0.1, 0.21, 0.39, 0.41, 0.6, 0.79, 0.81, 1.0, 1.19, 1.21, 1.6, 2.5)
TIMES = [NOW - 60_000, NOW - 1, NOW, NOW + 1000, NOW + 3_600_000]


async def write_on(core: Core) -> None:
    """Write messages at these times after now, each with its own time."""
    began = trio.current_time()
    for number, seconds in enumerate(WRITTEN_AFTER_SECONDS):
        await trio.sleep_until(began + seconds)
        core.kafka.produce(ROOM, value(f"m{number}"), partition=number % 2, time_ms=NOW + round(seconds * 1000))


async def prepared(core: Core, round_trip_seconds: float) -> None:
    core.kafka.round_trip_seconds = round_trip_seconds
    core.kafka.create(ROOM, partitions=2)
    core.kafka.produce(ROOM, value("old"), time_ms=NOW - 3_600_000)


EVERYTHING = [f"m{number}" for number in range(len(WRITTEN_AFTER_SECONDS))]


@pytest.mark.parametrize("round_trip_seconds", [0.0, 0.02, 0.4])
@pytest.mark.parametrize("from_ms", TIMES)
async def test_pages_have_all_of_it(autojump_clock, from_ms: int, round_trip_seconds: float):
    async with open_core() as core, trio.open_nursery() as nursery:
        await prepared(core, round_trip_seconds)
        nursery.start_soon(write_on, core)
        start, cursor, found = start_of(Query(b"from=%d" % from_ms), NOW), None, []
        while len(found) < len(EVERYTHING):
            page = await core.history.page(PageQuery(chat="room", start=start, cursor=cursor, wait_seconds=30))
            assert page.messages, f"nothing more after {found}"
            found += [json.loads(message)["text"] for message in page.messages]
            cursor = parse(page.next)
    assert sorted(found, key=EVERYTHING.index) == EVERYTHING


@pytest.mark.parametrize("round_trip_seconds", [0.0, 0.02, 0.4])
@pytest.mark.parametrize("from_ms", TIMES)
@pytest.mark.parametrize("format", list(Format))
async def test_sockets_and_streams_have_all_of_it(autojump_clock, format: Format, from_ms: int, round_trip_seconds: float):
    query = b"chat=room&from=%d" % from_ms
    options = parse_options(query, format=format, names=ChatNames("kafka.chat."), now_ms=NOW)
    client = FakeClient()
    async with open_core() as core, trio.open_nursery() as nursery:
        await prepared(core, round_trip_seconds)
        nursery.start_soon(write_on, core)
        async with core.connected(client, options=options):
            await trio.sleep(60)
    texts = [text for text in EVERYTHING if f'"text":"{text}"'.encode() in client.got]
    assert texts == EVERYTHING
    assert client.got.count(b'"sender"') == len(EVERYTHING)
