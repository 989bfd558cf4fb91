"""A client begins where it asks to, sees what it asked for, and is notified of what it misses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.resume_cursor import parse, text_of
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.audience.wanted_start import EARLIEST, LATEST, Since
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, FakeCluster, cursor_of, open_core, told

GLOBAL = "kafka.chat.global"
ROOM = "kafka.chat.room"


def v1(**options: Any) -> SessionOptions:
    return SessionOptions(format=Format.V1, **options)


def resumed(text: str, **options: Any) -> SessionOptions:
    return v1(cursor=parse(text), **options)


def kinds(client: FakeClient) -> list[str]:
    """What came, in order: texts of messages, and types of control frames in brackets."""
    return [str(frame.get("text", f"[{frame['meta'].get('type')}]")) for frame in client.deliveries]  # type: ignore[attr-defined]


@asynccontextmanager
async def visiting(core: Core, options: SessionOptions, *, room: float = float("inf")) -> AsyncIterator[FakeClient]:
    client = FakeClient(room)
    async with core.connected(client, options=options):
        await wait_all_tasks_blocked()
        yield client
        await wait_all_tasks_blocked()


@pytest.mark.promise("p-live")
async def test_a_message_of_v1_has_the_four_fields_first_and_then_where_it_is(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with visiting(core, v1()) as client:
            core.kafka.produce(GLOBAL, value("hello", tag="t"), time_ms=1234)
    frame = client.deliveries[-1]
    assert list(frame) == ["sender", "text", "tag", "chat", "meta"]
    meta = frame["meta"]
    assert meta == {"id": meta["id"], "partition": 0, "offset": 0, "time": 1234, "key": None, "headers": []}  # type: ignore[index]
    assert kinds(client) == ["[hello]", "[live]", "hello"]


async def test_a_client_that_comes_back_gets_exactly_what_it_missed(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=3)
        async with visiting(core, v1()) as first:
            for n in range(9):
                core.kafka.produce(GLOBAL, value(f"m{n}"), partition=n % 3)
        for n in range(9, 30):
            core.kafka.produce(GLOBAL, value(f"m{n}"), partition=n % 3)
        async with visiting(core, resumed(cursor_of(first))) as second:
            core.kafka.produce(GLOBAL, value("new"))
    assert told(second, "hello")[0]["resume"] == "exact"
    texts = [text for text in kinds(second) if text.startswith("m")]
    assert sorted(texts, key=lambda text: int(text[1:])) == [f"m{n}" for n in range(9, 30)]
    assert kinds(second)[-2:] == ["[live]", "new"]


async def test_what_was_never_delivered_is_delivered_after_a_cut_in_the_middle(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(2000)])
        async with visiting(core, v1(start=EARLIEST), room=50_000) as first:
            pass
        whole = [frame for frame in first.got.split(b"\x81") if frame.endswith(b"}}")]
        assert 10 < len(whole) < 1000
        ids = [json.loads(frame[frame.index(b"{") :])["meta"].get("id") for frame in whole]
        async with visiting(core, resumed(ids[-1])) as second:
            pass
    had = len([one for one in ids if one])
    assert [text for text in kinds(second) if text.startswith("m")] == [f"m{n}" for n in range(had, 2000)]


@pytest.mark.promise("p-none")
async def test_a_cursor_of_a_later_version_throughout_is_told_as_none(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("old"))
        async with visiting(core, resumed(text_of(b"\x09what comes later"))) as client:
            core.kafka.produce(GLOBAL, value("new"))
    assert told(client, "hello")[0]["resume"] == "none"
    assert kinds(client) == ["[hello]", "[live]", "new"]


@pytest.mark.promise("p-gap")
async def test_records_that_are_gone_are_told_before_what_follows_them(autojump_clock):
    async with open_core(memory_bytes=65_536) as core:
        core.kafka.create(GLOBAL)
        async with visiting(core, v1()) as first:
            core.kafka.produce(GLOBAL, value("m0"))
        core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(1, 3000)])
        core.kafka.trim(GLOBAL, 2000)
        async with visiting(core, resumed(cursor_of(first))) as second:
            pass
    gap = {"type": "gap", "chat": "global", "partition": 0, "first_lost": 1, "first_left": 2000, "cause": "retention"}
    assert told(second, "gap") == [gap]
    assert told(second, "hello")[0]["resume"] == "gap"
    assert kinds(second)[:3] == ["[hello]", "[gap]", "m2000"]


async def test_records_trimmed_under_a_client_that_is_behind_are_told_in_their_place(autojump_clock):
    async with open_core(memory_bytes=65_536) as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(3000)])
        async with visiting(core, v1(start=EARLIEST), room=20_000) as client:
            core.kafka.trim(GLOBAL, 2500)
            client.make_room(float("inf"))
    gap = told(client, "gap")[0]
    said = kinds(client)
    at = said.index("[gap]")
    assert said[at - 1] == f"m{gap['first_lost'] - 1}"
    assert said[at + 1] == f"m{gap['first_left']}" == "m2500"


async def test_a_topic_made_anew_while_away_is_told_and_begins_at_its_start(autojump_clock):
    for new in (2, 20):  # a shorter and a longer log than the old one
        async with open_core() as core:
            core.kafka.create(GLOBAL)
            async with visiting(core, v1()) as first:
                core.kafka.produce(GLOBAL, *[value(f"old{n}") for n in range(10)])
            core.kafka.delete(GLOBAL)
            core.kafka.create(GLOBAL)
            core.kafka.produce(GLOBAL, *[value(f"new{n}") for n in range(new)])
            async with visiting(core, resumed(cursor_of(first))) as second:
                pass
        gap = {"type": "gap", "chat": "global", "partition": 0, "first_lost": 10, "first_left": 0, "cause": "recreated"}
        assert told(second, "gap") == [gap]
        assert kinds(second) == ["[hello]", "[gap]", *[f"new{n}" for n in range(new)], "[live]"]


@pytest.mark.promise("p-gap")
async def test_a_topic_made_anew_while_connected_is_told_once(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with visiting(core, v1()) as first:
            core.kafka.produce(GLOBAL, value("old"))
            await wait_all_tasks_blocked()
            core.kafka.delete(GLOBAL, LossCause.RECREATED)
            core.kafka.create(GLOBAL)
            core.kafka.produce(GLOBAL, value("new"))
        async with visiting(core, resumed(cursor_of(first))) as second:
            pass
    assert kinds(first) == ["[hello]", "[live]", "old", "[gap]", "new"]
    assert kinds(second) == ["[hello]", "[live]"]


@pytest.mark.promise("p-gap")
async def test_a_log_that_lost_its_end_is_told_after_some_seconds(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with visiting(core, v1()) as first:
            core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(10)])
        topic = core.kafka.topics[GLOBAL]
        core.kafka.delete(GLOBAL)
        core.kafka.create(GLOBAL)
        core.kafka.topics[GLOBAL].topic_id = topic.topic_id
        core.kafka.produce(GLOBAL, value("other"), tail=False)
        client = FakeClient()
        session = core.requested(resumed(cursor_of(first)))
        core.kafka.requested.discard(GLOBAL)
        with core.audience.joined(session, known=True):
            await core.audience.wait_started(session, seconds=2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run, client, client)
                await trio.sleep(4)
                assert kinds(client) == []
                await trio.sleep(4)
                nursery.cancel_scope.cancel()
    assert told(client, "hello")[0]["resume"] == "future"
    assert [(gap["first_lost"], gap["first_left"], gap["cause"]) for gap in told(client, "gap")] == [(10, 1, "truncated")]


async def test_a_cursor_ahead_of_this_instance_waits_and_loses_nothing(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with visiting(core, v1()) as first:
            core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(5)])
        ahead = cursor_of(first)
        core.kafka.produce(GLOBAL, value("m5"), tail=False)
        client = FakeClient()
        async with core.connected(client, options=resumed(ahead.split(".")[0])):
            core.kafka.catch_up(GLOBAL, 5)
            await trio.sleep(1)
    assert [text for text in kinds(client) if text.startswith("m")][-1] == "m5"


@pytest.mark.promise("p-none")
async def test_a_cursor_of_another_cluster_begins_as_without_one_and_says_so(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with visiting(core, v1()) as first:
            core.kafka.produce(GLOBAL, value("m0"))
        core.kafka.produce(GLOBAL, value("m1"))
        cursor = cursor_of(first)
        other = replace(core, context=replace(core.context, cluster=FakeCluster("elsewhere")))
        async with visiting(other, resumed(cursor)) as second:
            core.kafka.produce(GLOBAL, value("m2"))
    assert told(second, "hello")[0]["resume"] == "none"
    assert kinds(second) == ["[hello]", "[live]", "m2"]


@pytest.mark.promise("p-chat-without-a-topic")
async def test_a_chat_that_had_no_topic_begins_at_its_start(autojump_clock):
    async with open_core() as core:
        async with visiting(core, v1()) as first:
            pass
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("first"))
        async with visiting(core, resumed(cursor_of(first))) as second:
            pass
    assert kinds(second) == ["[hello]", "first", "[live]"]


async def test_a_partition_added_while_away_begins_at_its_start(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with visiting(core, v1()) as first:
            core.kafka.produce(GLOBAL, value("m0"))
        topic = core.kafka.topics.pop(GLOBAL)
        core.kafka.requested.discard(GLOBAL)
        core.kafka.create(GLOBAL, partitions=2)
        core.kafka.topics[GLOBAL].topic_id = topic.topic_id
        core.kafka.topics[GLOBAL].partitions[0] = topic.partitions[0]
        core.kafka.produce(GLOBAL, value("added"), partition=1)
        async with visiting(core, resumed(cursor_of(first))) as second:
            pass
    assert kinds(second) == ["[hello]", "added", "[live]"]


@pytest.mark.promise("p-subscribed-since")
async def test_a_subscription_newer_than_the_cursor_begins_where_it_was_made(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, *[value(f"m{n}") for n in range(10)])
        async with visiting(core, v1()) as first:
            pass
        topic_id = core.kafka.topics[ROOM].topic_id
        change = SubscriptionChange(username="ann", chat="room", subscribed=True, topic_id=topic_id, starts={0: 7}, offset=3)
        core.subscribed["ann", "room"] = change
        async with visiting(core, resumed(cursor_of(first))) as second:
            pass
        async with visiting(core, resumed(cursor_of(second))) as third:
            pass
        async with visiting(core, v1()) as fresh:
            pass
    assert kinds(second) == ["[hello]", "m7", "m8", "m9", "[live]"]
    assert kinds(third) == ["[hello]", "[live]"]
    assert kinds(fresh) == ["[hello]", "[live]"]


async def test_a_topic_made_anew_since_it_was_subscribed_to_is_told(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.create(ROOM)
        async with visiting(core, v1()) as first:
            pass
        change = {"username": "ann", "chat": "room", "topic_id": core.kafka.topics[ROOM].topic_id, "starts": {0: 6}}
        core.subscribed["ann", "room"] = SubscriptionChange(subscribed=True, offset=3, **change)
        core.kafka.delete(ROOM)
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, value("new"))
        async with visiting(core, resumed(cursor_of(first))) as second:
            pass
    assert kinds(second) == ["[hello]", "[gap]", "new", "[live]"]
    assert told(second, "gap")[0] == {"type": "gap", "chat": "room", "partition": 0, "first_lost": 6, "first_left": 0, "cause": "recreated"}


async def test_what_came_after_subscribing_does_not_come_again_with_the_cursor_of_before(autojump_clock):
    for known in (True, False):  # whether the chat had a topic when it was subscribed to
        async with open_core() as core:
            core.kafka.create(GLOBAL)
            if known:
                core.kafka.create(ROOM)
                core.kafka.produce(ROOM, value("old"))
            async with visiting(core, v1()) as first:
                topic_id, starts = (core.kafka.topics[ROOM].topic_id, {0: 1}) if known else ("", {})
                change = SubscriptionChange(username="ann", chat="room", subscribed=True, topic_id=topic_id, starts=starts, offset=3)
                core.subscribed["ann", "room"] = change
                await core.audience.user_changed(change)
                await wait_all_tasks_blocked()
                if not known:
                    core.kafka.create(ROOM)
                core.kafka.produce(ROOM, value("m1"))
            core.kafka.produce(ROOM, value("m2"))
            async with visiting(core, resumed(cursor_of(first))) as second:
                pass
        assert kinds(first) == ["[hello]", "[live]", "[subscribed]", "m1"]
        assert kinds(second) == ["[hello]", "m2", "[live]"]


@pytest.mark.promise("p-rewind")
async def test_rewind_gives_the_last_messages_of_a_chat_over_its_partitions(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=3)
        for n in range(1500):
            core.kafka.produce(GLOBAL, value(f"m{n}"), partition=n * 7 % 3, time_ms=1000 + n)
        async with visiting(core, v1(rewind=50)) as client:
            core.kafka.produce(GLOBAL, value("new"))
    texts = [text for text in kinds(client) if text.startswith("m")]
    assert sorted(texts) == sorted(f"m{n}" for n in range(1450, 1500))
    assert kinds(client)[0] == "[hello]"
    assert kinds(client)[-2:] == ["[live]", "new"]


@pytest.mark.promise("p-rewind")
async def test_rewind_counts_what_passes_the_filter(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"m{n}", tag="rare" if n % 100 == 0 else "often") for n in range(5000)])
        async with visiting(core, v1(rewind=5, tags=frozenset({"rare"}))) as client:
            pass
    assert [text for text in kinds(client) if text.startswith("m")] == [f"m{n}" for n in range(4500, 5000, 100)]


@pytest.mark.promise("p-filters")
async def test_filters_let_through_what_has_no_tag_and_the_cursor_goes_on(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        options = v1(tags=frozenset({"a", ""}), senders=frozenset({"ann", "bo"}))
        async with visiting(core, options) as client:
            for tag in ("a", "b", "", None):
                for sender in ("ann", "bo", "cy"):
                    core.kafka.produce(GLOBAL, value(f"{tag}-{sender}", sender=sender, tag=tag))
            core.kafka.produce(GLOBAL, value("z", tag="b"))
        async with visiting(core, v1(start=LATEST, tags=frozenset({"b"}))) as other:
            pass
    expected = [f"{tag}-{sender}" for tag in ("a", "", None) for sender in ("ann", "bo")]
    assert [text for text in kinds(client) if not text.startswith("[")] == expected
    assert kinds(other) == ["[hello]", "[live]"]


@pytest.mark.promise("p-until")
async def test_until_ends_the_connection_when_all_before_it_is_delivered(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=2)
        for n in range(2000):
            core.kafka.produce(GLOBAL, value(f"m{n}"), partition=n % 2, time_ms=1000 + n)
        async with visiting(core, v1(start=EARLIEST, until_ms=2500)) as client:
            core.kafka.produce(GLOBAL, value("new"), time_ms=9999)
            await trio.sleep(1)
            assert client.closed == (1000, "until is reached")
    texts = [text for text in kinds(client) if text.startswith("m")]
    assert sorted(texts, key=lambda text: int(text[1:])) == [f"m{n}" for n in range(1500)]
    assert "[live]" not in kinds(client)


async def test_a_time_begins_at_the_first_message_of_that_time(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        for n in range(100):
            core.kafka.produce(GLOBAL, value(f"m{n}"), time_ms=1000 + n)
        async with visiting(core, v1(start=Since(1090))) as client:
            pass
    assert kinds(client) == ["[hello]", *[f"m{n}" for n in range(90, 100)], "[live]"]


@pytest.mark.promise("p-chat", "p-op-subscribe")
async def test_who_names_chats_gets_these_whatever_its_user_follows(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.create(ROOM)
        async with visiting(core, v1(chats=("room",))) as client:
            core.kafka.produce(GLOBAL, value("no"))
            core.kafka.produce(ROOM, value("yes"))
            await core.audience.user_changed(SubscriptionChange(username="ann", chat="room", subscribed=False, starts={}))
            core.kafka.produce(ROOM, value("still"))
    assert kinds(client) == ["[hello]", "[live]", "yes", "still"]


@pytest.mark.promise("p-subscribed")
async def test_what_its_user_subscribes_to_elsewhere_is_told(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.create(ROOM)
        change = {"username": "ann", "chat": "room", "topic_id": core.kafka.topics[ROOM].topic_id}
        async with visiting(core, v1()) as client:
            await core.audience.user_changed(SubscriptionChange(subscribed=True, starts={0: 0}, **change))
            await wait_all_tasks_blocked()
            core.kafka.produce(ROOM, value("m"))
            await wait_all_tasks_blocked()
            await core.audience.user_changed(SubscriptionChange(subscribed=False, starts={}, **change))
    assert kinds(client) == ["[hello]", "[live]", "[subscribed]", "m", "[unsubscribed]"]
    assert told(client, "subscribed")[0] == {"type": "subscribed", "chat": "room", "exists": True, "positions": {"0": 0}}
    assert told(client, "unsubscribed")[0] == {"type": "unsubscribed", "chat": "room", "exists": True, "positions": {"0": 1}}


@pytest.mark.promise("p-bare-parameters")
async def test_bare_clients_that_ask_get_bare_frames_only(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(10)])
        core.kafka.trim(GLOBAL, 3)
        async with visiting(core, SessionOptions(start=EARLIEST)) as client:
            core.kafka.produce(GLOBAL, value("new"))
    assert client.texts == [*[f"m{n}" for n in range(3, 10)], "new"]
    assert {tuple(frame) for frame in client.deliveries} == {("sender", "text", "tag", "chat")}


async def test_events_carry_the_whole_cursor_and_resume_exactly(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=2)
        async with visiting(core, SessionOptions(format=Format.EVENTS)) as client:
            for n in range(4):
                core.kafka.produce(GLOBAL, value(f"m{n}\nid: 9\n\n"), value(f"n{n}"), partition=n % 2)
                await wait_all_tasks_blocked()
        events = [event.split(b"\n") for event in client.got.split(b"\n\n") if event]
        assert events[0][2] == b"event: hello"
        messages = [event for event in events if not any(line.startswith(b"event:") for line in event)]
        assert len(messages) == 8
        assert all(len(event) == 2 and event[0].startswith(b"id: ") and event[1].startswith(b"data: {") for event in messages)
        for count, (name, _) in enumerate(messages, start=1):
            async with visiting(core, resumed(name[4:].decode())) as again:
                pass
            assert len([text for text in kinds(again) if not text.startswith("[")]) == 8 - count


@pytest.mark.promise("p-heartbeat", "p-heartbeat-frame")
async def test_a_heartbeat_has_the_cursor(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client = FakeClient()
        async with core.connected(client, options=v1(heartbeat_seconds=10.0)):
            await trio.sleep(1)
            core.kafka.produce(GLOBAL, value("m"))
            await trio.sleep(30)
        async with visiting(core, resumed(told(client, "heartbeat")[-1]["cursor"])) as again:
            pass
    assert kinds(client) == ["[hello]", "[live]", "m", "[heartbeat]", "[heartbeat]", "[heartbeat]"]
    assert kinds(again) == ["[hello]", "[live]"]
