"""Whatever start a client asks for, it gets `hello` in time, and everything from there on."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.resume_cursor import parse
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.audience.wanted_start import EARLIEST
from kafka_chat.delivery.log.last_messages import last_messages
from kafka_chat.delivery.records.formats import Format, View
from kafka_chat.delivery.session.ops import OPS_WAITING
from kafka_chat.delivery.session.options import SessionOptions
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GLOBAL, ROOM = "kafka.chat.global", "kafka.chat.room"
ACCEPT_SECONDS = 2.0


def v1(cursor: str = "", **options: Any) -> SessionOptions:
    return SessionOptions(format=Format.V1, cursor=parse(cursor) if cursor else None, **options)


def kinds(client: FakeClient) -> list[str]:
    return [str(frame.get("text") or frame["meta"].get("type")) for frame in client.deliveries]  # type: ignore[attr-defined]


def metas(client: FakeClient, kind: str) -> list[dict[str, Any]]:
    return [frame["meta"] for frame in client.deliveries if frame["meta"].get("type") == kind]  # type: ignore[attr-defined,misc]


def gaps(client: FakeClient) -> list[tuple[int, int, int, str]]:
    return [(meta["partition"], meta["first_lost"], meta["first_left"], meta["cause"]) for meta in metas(client, "gap")]


@asynccontextmanager
async def coming(core: Core, client: FakeClient, options: SessionOptions, *, known: bool = True) -> AsyncIterator[None]:
    """A session as the service runs it: accepted after two seconds at most, whatever is known by then."""
    session = core.requested(options)
    with core.audience.joined(session, known=known):
        await core.audience.wait_started(session, seconds=ACCEPT_SECONDS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run, client, client)
            yield
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()


async def cursor_at_the_end(core: Core) -> str:
    """The cursor of somebody who has had everything."""
    async with coming(core, client := FakeClient(), v1()):
        await wait_all_tasks_blocked()
    return str(metas(client, "live")[0]["cursor"])


# Brokers away


@pytest.mark.parametrize("asked", ["rewind", "beyond", "earliest", "nothing"])
@pytest.mark.parametrize("followed", [False, True])
@pytest.mark.promise("p-hello-without-brokers")
async def test_hello_comes_in_two_seconds_while_no_broker_answers(autojump_clock: MockClock, asked: str, *, followed: bool) -> None:
    async with open_core(memory_bytes=0) as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("m0"), value("m1"), value("m2"))
        cursor = await cursor_at_the_end(core)
        core.kafka.topics[GLOBAL].partitions[0].end = 2  # a broker has lost its end
        if followed:
            core.audience.pin(GLOBAL)
            await wait_all_tasks_blocked()
        core.kafka.away = True
        options = {"rewind": v1(rewind=2), "beyond": v1(cursor), "earliest": v1(start=EARLIEST), "nothing": v1()}[asked]
        greeted_by = trio.current_time() + ACCEPT_SECONDS + 0.1
        async with coming(core, client := FakeClient(), options):
            await trio.sleep_until(greeted_by)
            assert kinds(client)[0] == "hello"
            core.kafka.away = False
            if not followed:
                core.kafka.back()
            await trio.sleep(20)
        told = [kind for kind in kinds(client) if kind != "live"]
        if asked == "beyond":
            assert gaps(client) == [(0, 3, 2, "truncated")]
        else:
            assert told[1:] == ([] if asked == "nothing" else ["m0", "m1"])
        assert kinds(client)[-1] == "live"


async def test_a_rewind_while_no_broker_answers_misses_nothing_that_comes_after_the_accept(autojump_clock: MockClock) -> None:
    now_ms = 1 << 45  # later than any clock
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("old"), value("before"))
        core.kafka.away = True
        async with coming(core, client := FakeClient(), v1(rewind=1)):
            core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(5)], tail=False, time_ms=now_ms)
            core.kafka.back()
            await trio.sleep(20)
        assert kinds(client) == ["hello", *[f"m{n}" for n in range(5)], "live"]


# Beyond the end


async def cursor_beyond_the_end(core: Core) -> str:
    """Return the cursor after ten messages, of which the log then has lost all but four."""
    core.kafka.create(GLOBAL)
    core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(10)])
    cursor = await cursor_at_the_end(core)
    log = core.kafka.topics[GLOBAL].partitions[0]
    log.end, log.records = 4, {offset: log.records[offset] for offset in range(4)}
    return cursor


@pytest.mark.promise("p-truncated-goes-on")
@pytest.mark.parametrize("written", [0, 3])
async def test_what_is_written_while_a_log_is_found_out_to_be_shorter_is_delivered(autojump_clock: MockClock, written: int) -> None:
    async with open_core() as core:
        cursor = await cursor_beyond_the_end(core)
        async with coming(core, client := FakeClient(), v1(cursor)):
            for n in range(written):
                await trio.sleep(1)
                core.kafka.produce(GLOBAL, value(f"new{n}"))
            await trio.sleep(10)
        assert metas(client, "hello")[0]["resume"] == "future"
        assert gaps(client) == [(0, 10, 4, "truncated")]
        assert [kind for kind in kinds(client) if kind.startswith("new")] == [f"new{n}" for n in range(written)]


async def test_a_log_that_comes_to_the_place_meanwhile_was_a_moment_behind(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        cursor = await cursor_beyond_the_end(core)
        async with coming(core, client := FakeClient(), v1(cursor)):
            await trio.sleep(1)
            core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(4, 12)])
            await trio.sleep(10)
        assert metas(client, "hello")[0]["resume"] == "exact"
        assert kinds(client) == ["hello", "m10", "m11", "live"]


async def test_a_tail_that_is_a_moment_behind_is_no_loss(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(FakeClient(), "bo"):
            core.kafka.produce(GLOBAL, value("m0"), value("m1"))
            cursor = await cursor_at_the_end(core)
            core.kafka.delete(GLOBAL)
            core.kafka.create(GLOBAL)
            cursor = await cursor_at_the_end(core)
            core.kafka.produce(GLOBAL, value("m0"), value("m1"), tail=False)
            async with coming(core, client := FakeClient(), v1(cursor)):
                core.kafka.catch_up(GLOBAL, 0)
    assert kinds(client)[0] == "hello"
    assert gaps(client) == []


# Rewind


async def test_a_rewind_before_the_subscriptions_are_read_goes_back_in_subscribed_chats_too(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        for topic in (GLOBAL, ROOM):
            core.kafka.create(topic)
            core.kafka.produce(topic, *[value(f"{topic[-4:]}{n}") for n in range(5)])
        async with coming(core, client := FakeClient(), v1(rewind=2), known=False):
            await wait_all_tasks_blocked()
            assert kinds(client) == ["hello", "obal3", "obal4"] or kinds(client) == ["hello", "obal3", "obal4", "live"]
            core.chats["ann"] = {"global", "room"}
            await core.audience.subscriptions_read()
            await trio.sleep(2)
        assert [kind for kind in kinds(client) if kind.startswith("room")] == ["room3", "room4"]


async def test_finding_the_last_messages_renders_none(autojump_clock: MockClock) -> None:
    view = View(format=Format.V1)
    async with open_core() as core:
        core.kafka.create(GLOBAL, partitions=2)
        async with core.connected(FakeClient()):
            await wait_all_tasks_blocked()
            for n in range(20):
                core.kafka.produce(GLOBAL, value(f"m{n}"), partition=n % 2, time_ms=n)
            logs = [core.audience.followed[GLOBAL].logs[number] for number in range(2)]
            ends = {log: log.head for log in logs}
            begins = await last_messages(ends, 5, view=view, page_reads=core.reads, memory=core.memory)
            assert [begins[log] for log in logs] == [8, 7]
            for log in logs:
                batch = log.batch_at(9)
                assert batch is not None
                assert not batch.has_rendered(view)


@pytest.mark.parametrize("asked", ["rewind", "beyond"])
async def test_a_client_that_leaves_before_the_reading_for_it_begins(autojump_clock: MockClock, asked: str) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("m0"), value("m1"))
        cursor = await cursor_at_the_end(core)
        core.kafka.topics[GLOBAL].partitions[0].end = 1
        core.audience.pin(GLOBAL)
        await wait_all_tasks_blocked()
        with core.audience.joined(core.requested(v1(rewind=1) if asked == "rewind" else v1(cursor)), known=True):
            assert core.audience.followed.starts._pending  # and no checkpoint
        await wait_all_tasks_blocked()
        assert not core.audience.followed.starts._pending
        async with coming(core, client := FakeClient(), v1(rewind=1)):
            await wait_all_tasks_blocked()
    assert kinds(client) == ["hello", "m0", "live"]


@pytest.mark.parametrize("asked", [{"rewind": 3}, {"start": EARLIEST}])
async def test_a_client_that_leaves_while_its_beginning_is_read_leaves_nothing(autojump_clock: MockClock, asked: dict[str, Any]) -> None:
    async with open_core(memory_bytes=0) as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(5)])
        core.audience.pin(GLOBAL)
        await wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        core.kafka.page_gate = trio.Event()
        core.kafka.away = True
        for _ in range(5):
            async with coming(core, FakeClient(), v1(**asked)):
                await wait_all_tasks_blocked()
        await trio.sleep(5)  # the request that was under way ends
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert len(core.context.offsets) == 0
        assert not core.audience.followed.starts._pending


# Topics that go before their walk has come


@pytest.mark.parametrize("placed", [False, True])
async def test_a_topic_lost_before_a_client_begins_in_it_is_told_as_made_anew_once(autojump_clock: MockClock, *, placed: bool) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(5)])
        cursor = await cursor_at_the_end(core)
        core.kafka.away = True
        async with coming(core, client := FakeClient(), v1(cursor)):
            await wait_all_tasks_blocked()
            core.kafka.away = False
            core.kafka._open(GLOBAL, created=False)
            if placed:
                await wait_all_tasks_blocked()
            core.kafka.delete(GLOBAL, LossCause.RECREATED)  # in the same step: the walk of its opening has not begun
            core.kafka.create(GLOBAL)
            core.kafka.produce(GLOBAL, value("new"))
            await wait_all_tasks_blocked()
        assert gaps(client) == [(0, 5, 0, "recreated")]
        assert [kind for kind in kinds(client) if kind != "live"] == ["hello", "gap", "new"]


# Ops


async def test_an_op_is_not_answered_before_its_answer_is_written(autojump_clock: MockClock) -> None:
    change = {"username": "ann", "chat": "room", "topic_id": "", "starts": {}}
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=v1()):
            await wait_all_tasks_blocked()
            client.make_room(0)
            await core.audience.user_changed(SubscriptionChange(subscribed=True, **change))  # type: ignore[arg-type]
            await wait_all_tasks_blocked()  # this one is being written
            for mark in range(OPS_WAITING):
                client.say(json.dumps({"op": "ping", "re": mark}))
            await wait_all_tasks_blocked()
            client.make_room(client.owed)  # for the notice, and for no answer
            await wait_all_tasks_blocked()
            assert client.closed is None
            client.say(json.dumps({"op": "ping", "re": OPS_WAITING}))
            await wait_all_tasks_blocked()
            assert client.closed == (1008, "over 32 ops wait for their answers")
