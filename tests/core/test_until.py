"""`until` applies to each message's own time, up to each partition's end at the time of the request."""

from __future__ import annotations

import json

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.chat.resume_cursor import parse
from kafka_chat.delivery.audience.wanted_start import EARLIEST
from kafka_chat.delivery.history.query import PageQuery
from kafka_chat.delivery.records.batch import TIMES_A_READ, Batch, Chunk
from kafka_chat.delivery.records.formats import Bound, Format, View
from kafka_chat.delivery.records.frames import text_payloads
from kafka_chat.delivery.records.record import Record
from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.delivery.session.until import UNTIL_OFFSETS
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core

ROOM = "kafka.chat.room"
NOW = 1_764_064_800_000
OUT_OF_ORDER = [NOW - 60_000, NOW - 50_000, NOW + 3_600_000, NOW - 40_000, NOW - 30_000]  # as the issue has them
SECONDS = 30.0


def texts_of(client: FakeClient, format: Format) -> list[str]:
    if format is Format.EVENTS:
        data = [line[6:] for line in client.got.decode().split("\n") if line.startswith("data: ")]
    else:
        data = [payload.decode() for payload in text_payloads(client.got)]
    return [body["text"] for body in map(json.loads, data) if "text" in body]


async def visit(core: Core, options: SessionOptions) -> FakeClient:
    """Come, and stay until the end."""
    client = FakeClient()
    async with core.connected(client, options=options):
        with trio.fail_after(SECONDS):
            while client.closed is None:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.001)
    return client


async def pages(core: Core, **asked: object) -> list[list[str]]:
    """The texts of all pages, in one direction."""
    found, query = [], PageQuery(chat="room", **asked)  # type: ignore[arg-type]
    while True:
        page = await core.history.page(query)
        found.append([json.loads(message)["text"] for message in page.messages])
        if page.end:
            return found
        query = PageQuery(chat="room", cursor=parse(page.prev if query.backward else page.next), **asked)  # type: ignore[arg-type]
        assert len(found) < 100


@pytest.mark.parametrize("format", list(Format))
async def test_a_message_ahead_of_its_time_hides_none_that_come_after_it(autojump_clock, format):
    async with open_core() as core:
        core.kafka.create(ROOM)
        for number, time_ms in enumerate(OUT_OF_ORDER):
            core.kafka.produce(ROOM, value(f"m{number}"), time_ms=time_ms)
        client = await visit(core, SessionOptions(format=format, chats=("room",), start=EARLIEST, until_ms=NOW))
        assert client.closed == (1000, "until is reached")
        assert texts_of(client, format) == ["m0", "m1", "m3", "m4"]
        assert (b"event: end" in client.got) is (format is Format.EVENTS)
        assert await pages(core, until_ms=NOW) == [["m0", "m1", "m3", "m4"]]
        assert await pages(core, until_ms=NOW, limit=3) == [["m0", "m1", "m3"], ["m4"]]
        assert await pages(core, until_ms=NOW, backward=True, limit=3) == [["m1", "m3", "m4"], ["m0"]]


TIMES = st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 20), st.integers(0, 2)), max_size=40)


@settings(max_examples=40, deadline=None)
@given(records=TIMES, until=st.integers(0, 20), limit=st.integers(1, 20), in_memory=st.booleans(), format=st.sampled_from(list(Format)))
@pytest.mark.promise("p-until-own-time")
async def test_whatever_the_times_are_all_that_is_older_comes_once_and_nothing_else(
    *, records: list[tuple[int, int, int]], until: int, limit: int, in_memory: bool, format: Format
):
    async with open_core(memory_bytes=1 << 20 if in_memory else 2000) as core:
        core.kafka.create(ROOM, partitions=3)
        core.kafka.page_bytes = 300
        for number, (partition, time_ms, hole) in enumerate(records):
            core.kafka.produce(ROOM, value(f"m{number}"), partition=partition, time_ms=time_ms, hole=hole, tail=in_memory)
        expected = sorted(f"m{number}" for number, (_, time_ms, _) in enumerate(records) if time_ms < until)
        client = await visit(core, SessionOptions(format=format, chats=("room",), start=EARLIEST, until_ms=until))
        assert client.closed == (1000, "until is reached")
        assert sorted(texts_of(client, format)) == expected
        for backward in (False, True):
            found = await pages(core, until_ms=until, limit=limit, backward=backward)
            assert sorted(text for page in found for text in page) == expected


@pytest.mark.promise("p-until-end")
async def test_what_is_written_after_the_request_is_not_waited_for(autojump_clock):
    async with open_core() as core:
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, value("old"), time_ms=5)
        client = FakeClient(room=0)
        options = SessionOptions(format=Format.V1, chats=("room",), start=EARLIEST, until_ms=10)
        async with core.connected(client, options=options):
            await trio.sleep(1)
            core.kafka.produce(ROOM, value("late"), time_ms=6)
            client.make_room(float("inf"))
            with trio.fail_after(SECONDS):
                while client.closed is None:  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.1)
        assert texts_of(client, Format.V1) == ["old"]


@pytest.mark.parametrize("format", [Format.V1, Format.EVENTS])
@pytest.mark.promise("p-until-budget")
async def test_a_client_that_has_looked_far_enough_is_told_where_to_go_on(autojump_clock, format):
    async with open_core() as core:
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, value("first"), time_ms=5)
        for _ in range(2):
            core.kafka.produce(ROOM, value("too late"), time_ms=50, hole=UNTIL_OFFSETS)
            core.kafka.produce(ROOM, value("late"), time_ms=5)
        came: list[str] = []
        options = SessionOptions(format=format, chats=("room",), start=EARLIEST, until_ms=10)
        visits = 0
        while visits < 10:
            visits += 1
            client = await visit(core, options)
            came += texts_of(client, format)
            assert client.closed is not None
            if client.closed[0] == 1000:
                break
            assert client.closed[0] == 1013
            assert "reconnect with the cursor" in client.closed[1]
            said = client.got.decode().split("data: ") if format is Format.EVENTS else text_payloads(client.got)
            last = json.loads(said[-1])["meta"]
            assert last["type"] == "reconnect"
            options = SessionOptions(format=format, chats=("room",), cursor=parse(last["cursor"]), start=EARLIEST, until_ms=10)
        assert came == ["first", "late", "late"]
        assert visits > 1


@given(st.lists(st.integers(-1, 9), max_size=60), st.integers(0, 9), st.integers(1, 400), st.integers(0, 60), st.booleans())
def test_a_batch_is_read_up_to_a_bound_in_pieces_of_any_size(times, before_ms, max_bytes, end, v1):
    key = PartitionKey(ROOM, "id", 0)
    records = [Record(offset, value(f"m{offset}"), time_ms) for offset, time_ms in enumerate(times)]
    batch = Batch.decode(records, key, first=0, next=len(times) + 3, chat="room", max_bytes=1000)
    bound, position, found = Bound(end, before_ms), 0, []
    view = View(format=Format.V1 if v1 else Format.PLAIN)
    while position < min(end, batch.next):
        chunk = batch.read(position, max_bytes, view, bound=bound)
        assert position < chunk.next <= max(end, 0)
        assert chunk.messages < 2 or len(chunk.data) <= max_bytes
        found += [json.loads(payload)["text"] for payload in text_payloads(chunk.data)]
        position = chunk.next
    assert found == [f"m{offset}" for offset, time_ms in enumerate(times[:end]) if time_ms < before_ms]


def test_one_read_looks_at_so_many_times_only():
    records = [Record(offset, value(f"m{offset}"), 9) for offset in range(3 * TIMES_A_READ)]
    batch = Batch.decode(records, PartitionKey(ROOM, "id", 0), first=0, next=len(records), chat="room", max_bytes=1000)
    assert batch.read(0, 1 << 20, bound=Bound(len(records), 5)) == Chunk(b"", TIMES_A_READ, 0)
