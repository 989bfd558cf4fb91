"""An op is carried out, and its answer says from which offset on it holds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from time import thread_time
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.audience.audience import Audience
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.ops import OPS_WAITING, _positions
from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.delivery.writes.sending import Sending
from kafka_chat.delivery.writes.subscriptions import Subscriptions
from kafka_chat.settings.model import Settings
from tests.support.fake_subscription_log import FakePublisher, FakeSubscriptionLog
from tests.support.fake_topics import NAMES, value
from tests.support.fakes import Core, FakeClient, open_core
from tests.support.loop_steps import loop_steps

GLOBAL, ROOM = "kafka.chat.global", "kafka.chat.room"


class FollowedLog(FakeSubscriptionLog):
    """One that is passed once the live sessions follow what it says, as in the service."""

    def __init__(self, publisher: FakePublisher, audience: Audience) -> None:
        self.while_written: Callable[[], None] | None = None  # happens between a record and its change of what is followed
        self._changes: list[SubscriptionChange] = []
        self._audience = audience
        super().__init__(publisher, self._changes.append)

    async def passed(self, offset: int) -> None:
        await super().passed(offset)
        if self.while_written is not None:
            self.while_written()
            await wait_all_tasks_blocked()
        while self._changes:
            await self._audience.user_changed(self._changes.pop(0))


@asynccontextmanager
async def open_core_with_ops(*, sending: bool = True) -> AsyncIterator[Core]:
    """The core, whose subscriptions are in a topic of their own that is read all the time."""
    async with open_core() as core, trio.open_nursery() as nursery:
        publisher = FakePublisher()
        log = FollowedLog(publisher, core.audience)
        settings = Settings()
        core.context = replace(
            core.context,
            subscription_log=log,
            subscriptions=Subscriptions(log, lookup=core.kafka, names=NAMES, settings=settings),
            sending=Sending(publisher, lookup=core.kafka, names=NAMES, settings=settings) if sending else None,
        )
        core.kafka.create(GLOBAL)
        await nursery.start(log.run)
        yield core
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def asking(core: Core) -> AsyncIterator[FakeClient]:
    client = FakeClient()
    async with core.connected(client, options=SessionOptions(format=Format.V1)):
        await trio.sleep(0.1)
        yield client


def said(client: FakeClient) -> list[dict[str, Any]]:
    """What was said since, without the messages."""
    frames: list[dict[str, Any]] = client.deliveries  # type: ignore[assignment]
    client.got = b""
    return [frame["meta"] for frame in frames if "type" in frame["meta"]]


async def answers(client: FakeClient, op: dict[str, Any]) -> list[dict[str, Any]]:
    said(client)
    client.say(json.dumps(op))
    await trio.sleep(0.5)
    return said(client)


async def test_a_chat_is_had_from_where_the_answer_says(autojump_clock):
    async with open_core_with_ops() as core:
        core.kafka.create(ROOM, partitions=2)
        core.kafka.produce(ROOM, *[value(f"m{n}") for n in range(3)])
        async with asking(core) as client:
            assert await answers(client, {"op": "subscribe", "chat": "room", "re": 7}) == [
                {"type": "subscribed", "re": 7, "chat": "room", "exists": True, "positions": {"0": 3, "1": 0}}
            ]
            core.kafka.produce(ROOM, value("m3"))
            await wait_all_tasks_blocked()
            assert client.texts == ["m3"]
            # A second op is answered with the current position, not the start.
            assert await answers(client, {"op": "subscribe", "chats": ["room", "global"], "re": None}) == [
                {"type": "subscribed", "re": None, "chat": "room", "exists": True, "positions": {"0": 4, "1": 0}},
                {"type": "subscribed", "re": None, "chat": "global", "exists": True, "positions": {"0": 0}},
            ]
            assert await answers(client, {"op": "unsubscribe", "chat": "room", "re": "x"}) == [
                {"type": "unsubscribed", "re": "x", "chat": "room", "exists": True, "positions": {"0": 4, "1": 0}}
            ]
            core.kafka.produce(ROOM, value("m4"))
            core.kafka.produce(GLOBAL, value("g0"))
            await wait_all_tasks_blocked()
            assert client.texts == ["g0"]


@pytest.mark.promise("p-subscribed")
async def test_a_chat_that_nobody_follows_exists_for_who_unsubscribes_from_it_if_it_has_a_topic(autojump_clock):
    async with open_core_with_ops() as core, asking(core) as client:
        core.kafka.create(ROOM)
        found = await answers(client, {"op": "unsubscribe", "chats": ["room", "absent"]})
        assert [(answer["chat"], answer["exists"]) for answer in found] == [("room", True), ("absent", False)]


@pytest.mark.promise("p-subscribed")
async def test_an_unsubscribed_chat_comes_up_to_the_positions_of_the_answer_however_long_that_took(autojump_clock):
    async with open_core_with_ops() as core, asking(core) as client:
        core.kafka.create(ROOM)
        await answers(client, {"op": "subscribe", "chat": "room"})
        log = core.context.subscription_log
        assert isinstance(log, FollowedLog)
        log.while_written = lambda: core.kafka.produce(ROOM, value("m0"), value("m1"))
        client.say('{"op":"unsubscribe","chat":"room"}')
        await trio.sleep(0.5)
        assert [frame["text"] for frame in client.deliveries if "text" in frame] == ["m0", "m1"]
        assert [frame["positions"] for frame in said(client)] == [{"0": 2}]


async def test_a_chat_whose_place_no_broker_has_told_yet_begins_where_it_was_subscribed_to(autojump_clock):
    async with open_core_with_ops() as core:
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, value("m0"), value("m1"))
        async with asking(core) as client:
            core.kafka.round_trip_seconds = 0.4
            said(client)
            client.say(json.dumps({"op": "subscribe", "chat": "room"}))
            await trio.sleep(1.5)
            [answer] = said(client)
            assert (answer["type"], answer["positions"]) == ("subscribed", {"0": 2})


async def test_a_chat_without_a_topic_has_no_place_and_is_told_when_it_comes(autojump_clock):
    async with open_core_with_ops() as core, asking(core) as client:
        [answer] = await answers(client, {"op": "subscribe", "chat": "room"})
        assert (answer["type"], answer["exists"], answer["positions"]) == ("subscribed", False, {})
        core.kafka.create(ROOM)
        core.kafka.produce(ROOM, value("first"))
        await trio.sleep(0.5)
        assert client.texts == ["first"]


async def test_a_message_is_answered_with_the_id_that_it_has_when_it_comes(autojump_clock):
    async with open_core_with_ops() as core, asking(core) as client:
        [answer] = await answers(client, {"op": "send", "chat": "global", "text": "hi", "re": 1})
        core.kafka.produce(GLOBAL, value("hi"))
        await wait_all_tasks_blocked()
        [message] = client.deliveries
        meta: dict[str, Any] = message["meta"]  # type: ignore[assignment]
        assert answer == {"type": "sent", "re": 1, "chat": "global", "partition": 0, "offset": 0, "id": meta["id"]}


async def test_where_sending_is_off_the_answer_says_which_setting_switches_it_on(autojump_clock):
    async with open_core_with_ops(sending=False) as core, asking(core) as client:
        [answer] = await answers(client, {"op": "send", "chat": "global", "text": "hi", "re": 1})
        assert (answer["type"], answer["re"], answer["code"]) == ("error", 1, 403)
        assert "sending.enabled" in answer["message"]


@pytest.mark.parametrize(
    ("op", "code", "field", "sentence"),
    [
        ({"op": "dance"}, 400, "op", "op is 'dance'; it may be subscribe, unsubscribe, send or ping"),
        ({"op": "subscribe"}, 400, "chat", "chat is missing"),
        ({"op": "subscribe", "chats": []}, 400, "chats", "chats is empty"),
        ({"op": "subscribe", "chat": "a", "chats": ["b"]}, 400, "chats", "chat and chats are both given"),
        ({"op": "subscribe", "chats": ["room"] * 101}, 400, "chats", "chats names 101 chats; at most 100"),
        ({"op": "unsubscribe", "chat": "no chat"}, 400, "chat", "no chat"),
        ({"op": "send", "chat": "global"}, 400, "text", "chat and text are needed"),
        ({"op": "send", "text": "hi"}, 400, "chat", "chat and text are needed"),
        ({"op": "send", "chat": "room", "text": "hi"}, 404, "chat", "room is not a chat"),
    ],
)
async def test_what_cannot_be_done_is_answered_with_the_field_that_is_wrong(
    op: dict[str, Any], code: int, field: str, sentence: str, autojump_clock
):
    async with open_core_with_ops() as core, asking(core) as client:
        [answer] = await answers(client, {**op, "re": 5})
        assert (answer["type"], answer["re"], answer["code"], answer["field"]) == ("error", 5, code, field)
        assert sentence in answer["message"]
        assert await answers(client, {"op": "ping", "re": 6}) == [{"type": "pong", "re": 6}]


async def test_as_many_ops_may_wait_as_is_told_and_one_more_ends_the_connection(autojump_clock):
    async with open_core_with_ops() as core:
        client = FakeClient()
        async with core.connected(client, options=SessionOptions(format=Format.V1)):
            await trio.sleep(0.1)
            said(client)
            client.make_room(0)  # answers are not read
            for mark in range(OPS_WAITING):
                client.say(json.dumps({"op": "ping", "re": mark}))
            await trio.sleep(1)
            assert client.closed is None
            assert core.memory.owed_bytes > OPS_WAITING * len('{"op": "ping", "re": 0}')
            client.make_room(float("inf"))
            await trio.sleep(1)
            assert [answer["re"] for answer in said(client)] == [*range(OPS_WAITING)]
            assert core.memory.owed_bytes == 0
            client.make_room(0)
            for mark in range(OPS_WAITING + 1):
                client.say(json.dumps({"op": "ping", "re": mark}))
            await trio.sleep(1)
            client.make_room(float("inf"))
            await trio.sleep(1)
            assert client.closed == (1008, f"over {OPS_WAITING} ops wait for their answers")


async def test_others_go_on_while_places_in_many_chats_are_looked_up():
    class Crowded:
        """An audience in which it takes half a millisecond to tell where a session is in a chat."""

        def positions(self, session: object, chat: str) -> dict[int, int]:
            until = thread_time() + 0.0005
            while thread_time() < until:
                pass
            return {}

    asked: Any = SimpleNamespace(context=SimpleNamespace(audience=Crowded()), session=None)
    with loop_steps() as steps:
        await trio.lowlevel.checkpoint()
        assert len(await _positions(asked, [f"chat{n}" for n in range(100)])) == 100
        await trio.lowlevel.checkpoint()
    steps.check()
