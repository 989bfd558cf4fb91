"""A client's cursor is kept until the client's start is fixed, and no longer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.chat.resume_cursor import MessageIds, absent_entry, head_of_cursor, parse, text_of, topic_entry
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core
from tests.support.leaks import CursorsHeld

GLOBAL, ROOM = "kafka.chat.global", "kafka.chat.room"


def cursor_text(core: Core, *entries: bytes) -> str:
    """A cursor that stands at the start of the chats that there are, and in 20,000 partitions that nobody here has."""
    known = [topic_entry(topic, facts.topic_id, [0] * len(facts.partitions)) for topic, facts in core.kafka.topics.items()]
    return text_of(head_of_cursor(None, 0) + b"".join([*known, topic_entry("elsewhere", "id77", [5] * 20_000), *entries]))


@asynccontextmanager
async def resumed(core: Core, text: str, format: Format = Format.V1) -> AsyncIterator[FakeClient]:
    """A client that comes with a cursor, which nobody but its session refers to."""
    client = FakeClient()
    session = core.requested(SessionOptions(format=format, cursor=parse(text)))
    with core.audience.joined(session, known=True):
        await core.audience.wait_started(session, seconds=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run, client, client)
            await wait_all_tasks_blocked()
            yield client
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()


@pytest.mark.promise("p-cursors-are-freed")
async def test_the_cursor_is_forgotten_once_the_client_is_there(autojump_clock: MockClock) -> None:
    held = CursorsHeld()
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=3)
        core.kafka.produce(GLOBAL, value("m0"))
        for form in Format:
            async with resumed(core, cursor_text(core), form) as client:
                assert b"m0" in client.got
                assert held() == 0


async def test_it_is_kept_while_no_broker_says_where_the_client_begins_and_forgotten_then(autojump_clock: MockClock) -> None:
    held = CursorsHeld()
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        text = cursor_text(core)
        core.kafka.produce(GLOBAL, value("m0"))
        core.kafka.away = True
        async with resumed(core, text) as client:
            assert held() > 0
            core.kafka.back()
            await trio.sleep(30)
            assert client.deliveries[1]["text"] == "m0"
            assert held() == 0


async def test_a_partition_that_is_added_then_begins_at_its_start_whatever_the_cursor_was(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("m0"))
        topic_id = core.kafka.topics[GLOBAL].topic_id
        for text in (cursor_text(core), MessageIds(GLOBAL, topic_id, 0).of(0).decode()):
            async with resumed(core, text) as client:
                partitions = core.kafka.topics[GLOBAL].partitions
                added = len(partitions)
                partitions[added] = type(partitions[0])()
                core.audience.followed.topic_opened(GLOBAL, topic_id, {added: 0}, created=True)
                core.kafka.produce(GLOBAL, value("added"), partition=added)
            assert client.deliveries[-1]["text"] == "added"


async def test_where_a_topic_is_gone_the_gap_is_told_when_there_is_one_again(autojump_clock: MockClock) -> None:
    held = CursorsHeld()
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.chats["ann"] = {"global", "room"}
        async with resumed(core, cursor_text(core, topic_entry(ROOM, "id88", [7]))) as client:
            assert held() == 1  # that topic's entry, and nothing of the rest
            core.kafka.create(ROOM)
            core.kafka.produce(ROOM, value("new"))
            await wait_all_tasks_blocked()
        gap = {"type": "gap", "chat": "room", "partition": 0, "first_lost": 7, "first_left": 0, "cause": "recreated"}
        assert [frame["meta"] for frame in client.deliveries][-2] == gap
        assert client.deliveries[-1]["text"] == "new"


async def test_of_a_chat_that_never_had_a_topic_that_alone_is_kept(autojump_clock: MockClock) -> None:
    held = CursorsHeld()
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.chats["ann"] = {"global", "room"}
        async with resumed(core, cursor_text(core, absent_entry(ROOM))) as client:
            assert held() == 1
            core.kafka.create(ROOM)
            core.kafka.produce(ROOM, value("first"))
            await wait_all_tasks_blocked()
        assert client.deliveries[-1]["text"] == "first"
