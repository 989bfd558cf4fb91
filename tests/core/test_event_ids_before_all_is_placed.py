"""An event's id resumes exactly after it, even while a leader hangs and the client's start is not fixed."""

from __future__ import annotations

import pytest
import trio

from kafka_chat.chat.resume_cursor import cluster_mark, head_of_cursor, text_of
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.event_session import ID_BYTES
from kafka_chat.web.requests.parameters import parse_options
from tests.support.events_client import Event, EventsParser
from tests.support.fake_topics import NAMES, value
from tests.support.fakes import Core, FakeClient, open_core

GLOBAL, ROOM = "kafka.chat.global", "kafka.chat.room"


async def two_chats(core: Core, *, partitions: int = 1) -> str:
    """Ann's two chats, the second of which is led by a broker that then hangs; her cursor before that."""
    core.kafka.create(GLOBAL, partitions=partitions)
    core.kafka.create(ROOM)
    core.kafka.leaders[ROOM] = 2
    core.chats["ann"] = {"global", "room"}
    core.chats["bob"] = {"global"}
    core.kafka.produce(ROOM, value("earlier"))
    cursor = (await heard(core, None))[0].last_id
    core.kafka.hung = {2}
    return cursor


async def heard(core: Core, last_id: str | None, seconds: float = 5) -> list[Event]:
    """Return what a client of events gets in `seconds` when it resumes with an id."""
    client, parser = FakeClient(), EventsParser()
    parser.feed(b"id: %b\ndata: 0\n\n" % (last_id or "").encode())  # an `EventSource` keeps its last one where a stream has none
    options = parse_options(b"", format=Format.EVENTS, names=NAMES, now_ms=0, last_had=last_id)
    async with core.connected(client, options=options):
        await trio.sleep(seconds)
    return parser.feed(client.got)


def texts(told: list[Event]) -> list[str]:
    return [event.said["text"] for event in told if event.name == "message"]


@pytest.mark.promise("p-event-id", "p-last-event-id")
async def test_a_client_that_comes_back_twice_while_a_leader_hangs_gets_each_message_once(autojump_clock):
    async with open_core() as core:
        cursor = await two_chats(core)
        async with core.connected(FakeClient(), "bob"):
            core.kafka.produce(GLOBAL, value("m0"), value("m1"))
            first = await heard(core, cursor)
            assert texts(first) == ["m0", "m1"]
            core.kafka.produce(GLOBAL, value("m2"))
            core.kafka.produce(ROOM, value("r0"))
            second = await heard(core, first[-1].last_id)
            assert texts(second) == ["m2"]
            core.kafka.hung = set()
            core.kafka.produce(GLOBAL, value("m3"))
            third = await heard(core, second[-1].last_id, seconds=60)
            assert sorted(texts(third)) == ["m3", "r0"]
            assert [event.meta["resume"] for event in [*first, *second, *third] if event.name == "hello"] == ["exact"] * 3


@pytest.mark.promise("p-event-id")
async def test_each_id_of_that_time_resumes_right_after_its_event(autojump_clock):
    async with open_core() as core:
        cursor = await two_chats(core, partitions=3)
        async with core.connected(FakeClient(), "bob"):
            await trio.sleep(60)  # nobody here follows the room any more, whose leader hangs
            for number in range(9):
                core.kafka.produce(GLOBAL, value(f"m{number}"), partition=number % 3)
            core.kafka.produce(ROOM, value("r0"))
            told = [event for event in await heard(core, cursor) if event.name == "message"]
            assert sorted(texts(told)) == [f"m{number}" for number in range(9)]
            core.kafka.hung = set()
            for had, event in enumerate(told, start=1):
                rest = texts(await heard(core, event.last_id, seconds=60))
                assert sorted(rest) == sorted([*texts(told[had:]), "r0"])


@pytest.mark.promise("p-event-id", "p-long-ids")
async def test_while_such_an_id_would_be_too_long_there_is_none_and_the_stream_stays_resumable(autojump_clock):
    async with open_core() as core:
        cursor = await two_chats(core)
        core.kafka.produce(ROOM, value("r0"))
        long = ".".join([cursor] * (ID_BYTES // (len(cursor) + 1)))
        assert ID_BYTES - len(cursor) <= len(long) <= ID_BYTES
        async with core.connected(FakeClient(), "bob"):
            await trio.sleep(60)
            core.kafka.produce(GLOBAL, value("m0"))
            told = await heard(core, long)
            assert [(event.name, event.last_id == long) for event in told] == [("hello", True), ("message", True)]
            assert told[0].meta["resumable"] is True
            core.kafka.hung = set()
            assert sorted(texts(await heard(core, long, seconds=60))) == ["m0", "r0"]


async def test_who_comes_with_the_cursor_of_another_cluster_is_given_nothing_of_it(autojump_clock):
    async with open_core() as core:
        await two_chats(core)
        other = text_of(head_of_cursor(cluster_mark("there"), 0))
        async with core.connected(FakeClient(), "bob"):
            await trio.sleep(60)
            told = await heard(core, other)
            assert told[0].meta["resume"] == "none"
            assert not [event for event in told if event.meta.get("cursor", "").startswith(other)]
