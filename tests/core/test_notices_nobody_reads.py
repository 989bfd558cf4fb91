"""What a kafka-chat.v1 client asks for and does not read stays small, and so do the notices that others cause for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.records.frames import text_payloads
from kafka_chat.delivery.session.ops import OPS_WAITING
from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.delivery.session.resumable_session import ResumableSession
from kafka_chat.service import RESTART
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core
from tests.support.loop_steps import loop_steps

GLOBAL, ROOM = "kafka.chat.global", "kafka.chat.room"
V1 = SessionOptions(format=Format.V1)


def ping(mark: int) -> str:
    return json.dumps({"op": "ping", "re": mark})


def metas(client: FakeClient) -> list[dict[str, object]]:
    return [frame["meta"] for frame in client.deliveries]  # type: ignore[misc]


def kinds(client: FakeClient) -> list[object]:
    return [frame.get("text") or frame["meta"].get("type") for frame in client.deliveries]  # type: ignore[attr-defined]


def change(chat: str, *, subscribed: bool, at: int = 0) -> SubscriptionChange:
    return SubscriptionChange(username="ann", chat=chat, subscribed=subscribed, topic_id="", starts={0: at} if subscribed else {})


async def caught_up(core: Core, client: FakeClient) -> None:
    """Have a session say all that it has to say, and then have no room for more."""
    await wait_all_tasks_blocked()
    assert kinds(client) == ["hello", "live"]
    client.make_room(0)


@pytest.mark.promise("p-ops-wait")
async def test_the_thirty_third_op_that_waits_for_its_answer_is_one_too_many(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=V1):
            await caught_up(core, client)
            for mark in range(OPS_WAITING):
                client.say(ping(mark))
                await wait_all_tasks_blocked()
            assert client.closed is None
            client.say(ping(OPS_WAITING))
            await wait_all_tasks_blocked()
            assert client.closed == (1008, "over 32 ops wait for their answers")
            assert client.owed < 1000


@pytest.mark.promise("p-ops-wait")
async def test_ops_that_waited_for_a_client_to_read_are_answered_in_their_order(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=V1):
            await caught_up(core, client)
            for round_ in range(3):
                for mark in range(OPS_WAITING):
                    client.say(ping(round_ * OPS_WAITING + mark))
                await wait_all_tasks_blocked()
                client.make_room(float("inf"))
                await wait_all_tasks_blocked()
                client.make_room(0)
    assert [meta["re"] for meta in metas(client)[2:]] == list(range(3 * OPS_WAITING))


async def test_a_client_that_reads_may_ask_without_end(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=V1):
            for mark in range(500):
                client.say(ping(mark))
                await wait_all_tasks_blocked()
    assert [meta["re"] for meta in metas(client) if meta.get("type") == "pong"] == list(range(500))


async def test_the_end_of_a_client_whose_ops_wait_is_seen(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client, ended = FakeClient(), trio.Event()
        session = core.requested(V1)

        async def run() -> None:
            assert await session.run(client, client) == 1001
            ended.set()

        with core.audience.joined(session, known=True):
            await core.audience.wait_started(session, seconds=2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await caught_up(core, client)
                for mark in range(OPS_WAITING):
                    client.say(ping(mark))
                client.leave(1001)
                with trio.fail_after(30):
                    await ended.wait()


async def test_whatever_others_do_to_a_user_whose_socket_is_stuck_it_holds_a_few_notices_and_stays(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.create(ROOM)
        core.kafka.create("kafka.chat.left")
        core.chats["ann"] = {"global", "left"}
        async with core.connected(client := FakeClient(), options=SessionOptions(format=Format.V1, heartbeat_seconds=10.0)) as session:
            await caught_up(core, client)
            assert isinstance(session, ResumableSession)
            await core.audience.user_changed(change("left", subscribed=False))
            await wait_all_tasks_blocked()  # this one is on its way
            for n in range(1000):
                await core.audience.user_changed(change("room", subscribed=True, at=n))
                await core.audience.user_changed(change("room", subscribed=False))
                await core.audience.user_changed(change("left", subscribed=True, at=n))
                await core.audience.user_changed(change("left", subscribed=False))
                await core.audience.user_changed(change(f"new{n}", subscribed=True))
                await core.audience.user_changed(change(f"new{n}", subscribed=False))
                assert len(session._notices) <= 3
            await core.audience.user_changed(change("room", subscribed=True, at=0))
            await trio.sleep(600)
            assert len(session._notices) <= 3
            core.kafka.produce(ROOM, value("at last"))
            assert client.closed is None
            client.make_room(float("inf"))
            await wait_all_tasks_blocked()
    assert kinds(client)[2:] == ["unsubscribed", "subscribed", "heartbeat", "at last"]
    assert [meta.get("chat") for meta in metas(client)[2:4]] == ["left", "room"]


async def test_a_slow_client_gets_messages_between_what_others_cause_it_to_be_told(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=V1):
            await caught_up(core, client)
            for n in range(200):
                core.kafka.produce(GLOBAL, value(f"m{n}"))
                await core.audience.user_changed(change("room", subscribed=n % 2 == 0))
                await wait_all_tasks_blocked()
                client.make_room(400)  # one message, or two notices
            client.make_room(float("inf"))
            await wait_all_tasks_blocked()
    assert [kind for kind in kinds(client) if str(kind).startswith("m")] == [f"m{n}" for n in range(200)]


class Reader(FakeClient):
    """Takes everything at once, and keeps it in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def offer(self, frames: bytes) -> bool:
        self.pieces.append(frames)
        return True


async def test_twenty_thousand_gaps_are_told_in_turns(autojump_clock: MockClock) -> None:
    count = 20_000
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        key = core.kafka.key(GLOBAL)
        async with core.connected(client := Reader(), options=V1) as session:
            await wait_all_tasks_blocked()
            client.pieces.clear()
            for partition in range(count):
                session.on_gap(key._replace(partition=partition), 0, 10, LossCause.RETENTION)
            await trio.lowlevel.checkpoint()
            with loop_steps() as steps:
                await wait_all_tasks_blocked()
            steps.check()
            told = [json.loads(payload)["meta"]["partition"] for piece in client.pieces for payload in text_payloads(piece)]
            assert told == list(range(count))


async def test_a_client_that_is_to_come_back_learns_of_the_gaps_that_its_cursor_lies_behind(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=V1) as session:
            await caught_up(core, client)
            await core.audience.user_changed(change("room", subscribed=True))
            await wait_all_tasks_blocked()
            session.on_gap(core.kafka.key(GLOBAL), 0, 10, LossCause.RETENTION)
            session.on_gap(core.kafka.key(GLOBAL), 10, 20, LossCause.RETENTION)
            session.end(RESTART)
            client.make_room(float("inf"))
            await wait_all_tasks_blocked()
    assert kinds(client)[2:] == ["subscribed", "gap", "reconnect"]
    assert metas(client)[3] == {"type": "gap", "chat": "global", "partition": 0, "first_lost": 0, "first_left": 20, "cause": "retention"}


async def test_ops_that_wait_are_counted_and_no_longer_once_they_are_answered_or_the_client_is_gone(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=V1):
            for _ in range(2):
                for _ in range(OPS_WAITING):
                    client.say("x" * 10_000)
                client.make_room(0)
                await wait_all_tasks_blocked()
                assert core.memory.owed_bytes > OPS_WAITING * 10_000
                client.make_room(float("inf"))
                await wait_all_tasks_blocked()
                assert core.memory.owed_bytes == 0
            client.make_room(0)
            for _ in range(OPS_WAITING):
                client.say("x" * 10_000)
            await wait_all_tasks_blocked()
        assert core.memory.owed_bytes == 0


@pytest.mark.promise("p-op-subscribe")
async def test_an_op_names_a_hundred_chats_at_most_and_more_are_not_even_looked_at(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=V1):
            await wait_all_tasks_blocked()
            for op in ("subscribe", "unsubscribe"):
                client.say(json.dumps({"op": op, "chats": ["a"] * 20_000, "re": op}))
            await wait_all_tasks_blocked()
    error = {"type": "error", "code": 400, "message": "chats names 20000 chats; at most 100 are allowed in one op", "field": "chats"}
    assert [meta for meta in metas(client) if "re" in meta] == [error | {"re": op} for op in ("subscribe", "unsubscribe")]


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"chats": []}, "chats is empty; subscribe needs at least one chat"),
        ({"chat": "a", "chats": ["b"]}, "chat and chats are both given"),
    ],
)
async def test_an_op_names_chats_in_one_way_and_at_least_one(autojump_clock: MockClock, named: dict[str, Any], sentence: str) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=V1):
            await wait_all_tasks_blocked()
            client.say(json.dumps({"op": "subscribe", **named, "re": 1}))
            await wait_all_tasks_blocked()
    (refused,) = [meta for meta in metas(client) if "re" in meta]
    assert (refused["type"], refused["code"], refused["field"]) == ("error", 400, "chats")
    assert refused["message"].startswith(sentence)
