"""A cursor leaves out only what a subscription's record says, so nothing is lost."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.resume_cursor import NOT_KNOWN, OF_A_PAGE, ResumeCursor, parse
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.audience.wanted_start import EARLIEST, Since
from kafka_chat.delivery.history.query import PageQuery
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.delivery.session.resumable_session import ResumableSession
from tests.core.test_resumable_session import cursor_of, kinds, resumed, told, v1, visiting
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core

GLOBAL, ROOM = "kafka.chat.global", "kafka.chat.room"


def read_subscriptions(core: Core, position: int) -> None:
    """Have the subscriptions topic read up to an offset."""
    log: Any = core.context.subscription_log
    log.read()
    log._position = position


async def subscribe(core: Core, chat: str, *, offset: int, topic_id: str = "", **starts: int) -> None:
    """Subscribe ann to a chat, by the record at an offset; `p0=5` is where it began in partition 0."""
    begun = {int(name[1:]): start for name, start in starts.items()}
    change = SubscriptionChange(username="ann", chat=chat, subscribed=True, topic_id=topic_id, starts=begun, offset=offset)
    core.subscribed["ann", chat] = change
    read_subscriptions(core, offset + 1)
    await core.audience.user_changed(change)
    await wait_all_tasks_blocked()


async def test_a_cursor_made_while_the_subscriptions_topic_was_empty_loses_no_other_partition_of_a_chat_subscribed_to_since(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.create(ROOM, partitions=2)
        read_subscriptions(core, 0)
        async with visiting(core, v1()) as first:
            assert parse(told(first, "hello")[0]["cursor"]).subscriptions == 0
            await subscribe(core, "room", offset=0, topic_id=core.kafka.topics[ROOM].topic_id, p0=0, p1=0)
            core.kafka.produce(ROOM, value("had"), partition=0)
        core.kafka.produce(ROOM, value("missed"), partition=1)
        async with visiting(core, resumed(cursor_of(first))) as second:
            pass
    assert kinds(second) == ["[hello]", "missed", "[live]"]
    assert told(second, "hello")[0]["resume"] == "exact"


async def test_a_chat_subscribed_to_before_the_subscriptions_were_read_loses_no_other_partition(autojump_clock):
    """The cursor does not say how far they were known: what only ids name was subscribed to since it was made."""
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.create(ROOM, partitions=2)
        async with visiting(core, v1()) as first:
            assert parse(told(first, "hello")[0]["cursor"]).subscriptions == NOT_KNOWN
            await subscribe(core, "room", offset=7, topic_id=core.kafka.topics[ROOM].topic_id, p0=0, p1=0)
            core.kafka.produce(ROOM, value("had"), partition=0)
        core.kafka.produce(ROOM, value("missed"), partition=1)
        async with visiting(core, resumed(cursor_of(first))) as second:
            pass
    assert kinds(second) == ["[hello]", "missed", "[live]"]


async def test_the_cursor_of_a_page_says_that_it_is_one_and_brings_no_chat_back_to_where_it_was_subscribed_to(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, *[value(f"m{n}") for n in range(6)])
        await subscribe(core, "room", offset=3, topic_id=core.kafka.topics[ROOM].topic_id, p0=0)
        page = await core.history.page(PageQuery(chat="room", limit=4))
        cursor = parse(page.next)
        assert (cursor.subscriptions, cursor.complete) == (OF_A_PAGE, False)
        async with visiting(core, resumed(page.next)) as client:
            pass
    assert kinds(client) == ["[hello]", "m4", "m5", "[live]"]


BEGINNINGS = {"nothing": {}, "rewind": {"rewind": 1}, "a time": {"start": Since(10)}, "the earliest": {"start": EARLIEST}}


@pytest.mark.parametrize("offset", [0, 4])
@pytest.mark.parametrize("otherwise", BEGINNINGS)
@pytest.mark.promise("p-cursor-complete")
async def test_an_absent_chat_is_not_named_and_begins_with_its_first_message_whatever_else_is_asked_for(autojump_clock, otherwise, offset):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        await subscribe(core, "room", offset=offset)
        async with visiting(core, v1()) as first:
            pass
        cursor = parse(told(first, "live")[0]["cursor"])
        assert cursor.complete
        assert cursor.entry(ROOM) is None
        core.kafka.create(ROOM, partitions=2)
        for n in range(3):
            core.kafka.produce(ROOM, value(f"m{n}"), partition=n % 2, time_ms=n)
        async with visiting(core, resumed(cursor_of(first), **BEGINNINGS[otherwise])) as second:
            pass
    assert sorted(kinds(second)) == ["[hello]", "[live]", "m0", "m1", "m2"]
    assert told(second, "hello")[0]["resume"] == "exact"


@pytest.mark.promise("p-subscribed-since")
async def test_a_chat_that_came_to_life_while_its_client_was_here_loses_no_other_partition(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        await subscribe(core, "room", offset=4)
        async with visiting(core, v1()) as first:
            core.kafka.create(ROOM, partitions=2)
            core.kafka.produce(ROOM, value("had"), partition=1)
        core.kafka.produce(ROOM, value("missed"), partition=0)
        async with visiting(core, resumed(cursor_of(first))) as second:
            pass
    assert kinds(second) == ["[hello]", "missed", "[live]"]


@pytest.mark.parametrize("format", [Format.V1, Format.EVENTS])
async def test_what_no_record_says_is_named(autojump_clock, format):
    """A default chat, a chat that a client names, a topic that was there when it was subscribed to, another user's records."""
    async with open_core() as core:
        await subscribe(core, "room", offset=4, topic_id="id99", p0=5)
        async with core.connected(FakeClient(), options=SessionOptions(format=format)) as session:
            assert said_by(session).entries.keys() == named("global", "room").keys()
        async with core.connected(FakeClient(), options=SessionOptions(format=format, chats=("room", "x"))) as session:
            assert said_by(session).entries.keys() == named("room", "x").keys()
            assert not said_by(session).complete


def said_by(session: object) -> ResumeCursor:
    """What the cursor of a session says now."""
    assert isinstance(session, ResumableSession)
    text = session._cursor()
    assert text is not None
    return parse(text)


def named(*chats: str) -> dict[bytes, None]:
    from kafka_chat.chat.resume_cursor import topic_mark

    return {topic_mark(f"kafka.chat.{chat}"): None for chat in chats}


async def test_a_topic_that_is_away_is_told_as_made_anew_by_the_second_cursor_after_it_too(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.create(ROOM)
        await subscribe(core, "room", offset=4, topic_id=core.kafka.topics[ROOM].topic_id, p0=0)
        async with visiting(core, v1()) as first:
            core.kafka.produce(ROOM, value("a"), value("b"))
        core.kafka.delete(ROOM)
        async with visiting(core, resumed(cursor_of(first))) as second:
            pass
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, value("c"))
        async with visiting(core, resumed(cursor_of(second))) as third:
            pass
    assert [(gap["first_lost"], gap["first_left"], gap["cause"]) for gap in told(third, "gap")] == [(2, 0, "recreated")]
    assert [kind for kind in kinds(third) if not kind.startswith("[")] == ["c"]
