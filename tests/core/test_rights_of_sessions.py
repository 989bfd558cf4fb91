"""A session follows what its token may read, is told what it may not, and ends with its token."""

from __future__ import annotations

import gc
import json
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.access.decision import KeysNotKnown, Unauthorized
from kafka_chat.access.identity import EVERYBODY, Identity
from kafka_chat.access.rights import Rights
from kafka_chat.chat.resume_cursor import parse
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, cursor_of, open_core, told
from tests.support.loop_steps import MOST_MS, loop_steps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

V1 = SessionOptions(format=Format.V1)
TOPIC = "kafka.chat."
REFUSED, UNKNOWN = b"refused", b"unknown"


def person(*chats: str, user: str | None = "ann", seconds: float | None = None) -> Identity:
    return Identity(user=user, rights=Rights.parse(list(chats)), ends_at=None if seconds is None else time.time() + seconds)


def texts(client: FakeClient) -> list[object]:
    return [frame["text"] for frame in client.deliveries if "text" in frame]


@asynccontextmanager
async def core_of(tokens: dict[bytes, Identity] | None = None) -> AsyncIterator[Core]:
    """The core with access on: the chats `global` and `room1` of everybody, `room2` besides of ann."""

    async def identify(token: bytes | None, peer: str) -> Identity:
        await trio.lowlevel.checkpoint()
        if token == UNKNOWN:
            raise KeysNotKnown
        if token is None or token not in (tokens or {}):
            raise Unauthorized
        return (tokens or {})[token]

    async with open_core() as core:
        core.context = replace(core.context, identify=identify)
        for chat in ("global", "room1", "room2"):
            core.kafka.create(TOPIC + chat)
        core.chats[""] = {"global", "room1"}
        core.chats["ann"] = {"global", "room1", "room2"}
        yield core


@asynccontextmanager
async def visiting(core: Core, identity: Identity, options: SessionOptions = V1) -> AsyncIterator[FakeClient]:
    client = FakeClient()
    async with core.connected(client, options=options, identity=identity):
        await wait_all_tasks_blocked()
        yield client
        await wait_all_tasks_blocked()


def produce_everywhere(core: Core, text: str) -> None:
    for chat in ("global", "room1", "room2"):
        core.kafka.produce(TOPIC + chat, value(f"{text} in {chat}"))


async def answer(client: FakeClient, **op: object) -> dict[str, Any]:
    client.say(json.dumps({**op, "re": 1}))
    await trio.sleep(1)
    [found] = [frame["meta"] for frame in client.deliveries if frame["meta"].get("re") == 1]  # type: ignore[attr-defined]
    return found  # type: ignore[no-any-return]


async def test_while_access_is_off_hello_is_what_it_was(autojump_clock: MockClock):
    async with core_of() as core, visiting(core, EVERYBODY) as client:
        assert told(client, "hello")[0].keys().isdisjoint({"user_from", "denied", "auth"})


@pytest.mark.promise("p-hello-access")
async def test_what_may_not_be_read_is_left_out_and_hello_says_so(autojump_clock: MockClock):
    async with core_of() as core, visiting(core, person("room*", seconds=600)) as client:
        produce_everywhere(core, "new")
    hello = told(client, "hello")[0]
    assert (hello["chats"], hello["denied"], hello["user_from"]) == (["room1", "room2"], ["global"], "token")
    assert 598 <= hello["auth"]["expires_in"] <= 600
    assert texts(client) == ["new in room1", "new in room2"]


async def test_a_bare_client_gets_what_it_may_read_and_nothing_else(autojump_clock: MockClock):
    async with core_of() as core, visiting(core, person("room1"), SessionOptions()) as client:
        produce_everywhere(core, "new")
    assert client.texts == ["new in room1"]


async def test_without_a_token_the_name_in_the_path_stands_for_nobody(autojump_clock: MockClock):
    async with core_of() as core, visiting(core, person("global", "room2", user=None)) as client:
        hello = told(client, "hello")[0]
        change = SubscriptionChange(username="ann", chat="room2", subscribed=True, topic_id="", starts={}, offset=7)
        await core.audience.user_changed(change)  # whose name it is in the path
        produce_everywhere(core, "new")
    assert (hello["chats"], hello["denied"], hello["user_from"]) == (["global"], ["room1"], "anonymous")
    assert "auth" not in hello
    assert texts(client) == ["new in global"]
    assert not told(client, "subscribed")


@pytest.mark.parametrize(
    "op", [{"op": "subscribe", "chat": "room2"}, {"op": "unsubscribe", "chat": "room1"}, {"op": "send", "chat": "global", "text": "x"}]
)
async def test_without_a_token_nothing_is_changed(op: dict[str, object], autojump_clock: MockClock):
    async with core_of() as core, visiting(core, person("*", user=None)) as client:
        found = await answer(client, **op)
    assert (found["type"], found["code"]) == ("error", 401)


async def test_a_chat_that_may_not_be_read_is_not_followed_when_somebody_subscribes_the_user_to_it(autojump_clock: MockClock):
    async with core_of() as core:
        core.chats["ann"] = {"global"}
        async with visiting(core, person("global")) as client:
            change = SubscriptionChange(username="ann", chat="room1", subscribed=True, topic_id="", starts={}, offset=7)
            await core.audience.user_changed(change)
            produce_everywhere(core, "new")
    assert texts(client) == ["new in global"]
    assert not told(client, "subscribed")


@pytest.mark.parametrize("chat", ["room2", "absent"])
async def test_an_op_without_the_right_is_refused_in_the_same_words_whether_or_not_the_chat_exists(chat: str, autojump_clock: MockClock):
    async with core_of() as core:
        core.chats["ann"] = {"global"}
        async with visiting(core, person("global", "room1")) as client:
            found = await answer(client, op="subscribe", chats=["room1", chat])
    assert (found["code"], found["message"]) == (403, "the token gives no right to read this chat")


@pytest.mark.promise("p-authorized")
@pytest.mark.promise("p-subscribed-cause")
@pytest.mark.promise("p-auth-rights")
async def test_a_right_that_comes_back_goes_on_where_it_was_lost(autojump_clock: MockClock):
    tokens = {b"fewer": person("global"), b"more": person("*")}
    async with core_of(tokens) as core, visiting(core, person("*")) as client:
        produce_everywhere(core, "first")
        await trio.sleep(1)
        found = await answer(client, op="auth", token="fewer")
        assert (found["type"], found["denied"]) == ("authorized", ["room1", "room2"])
        produce_everywhere(core, "second")
        await trio.sleep(1)
        client.say('{"op":"auth","token":"more"}')
        await trio.sleep(1)
        produce_everywhere(core, "third")
    assert [(meta["chat"], meta["cause"], meta["positions"]) for meta in told(client, "unsubscribed")] == [
        ("room1", "denied", {"0": 1}), ("room2", "denied", {"0": 1}),
    ]  # fmt: skip
    assert [(meta["chat"], meta["cause"], meta["positions"]) for meta in told(client, "subscribed")] == [
        ("room1", "allowed", {"0": 1}), ("room2", "allowed", {"0": 1}),
    ]  # fmt: skip
    for chat in ("global", "room1", "room2"):
        assert [text for text in texts(client) if str(text).endswith(chat)] == [f"{n} in {chat}" for n in ("first", "second", "third")]


@pytest.mark.promise("p-denied-cursor")
@pytest.mark.parametrize("lost_while_connected", ["lost while connected", ""])
async def test_a_right_that_comes_back_with_a_later_connection_goes_on_where_the_cursor_was(
    lost_while_connected: str, autojump_clock: MockClock
):
    tokens = {b"fewer": person("global")}
    async with core_of(tokens) as core:
        async with visiting(core, person("*")) as client:
            produce_everywhere(core, "first")
            if lost_while_connected:
                await trio.sleep(1)
                await answer(client, op="auth", token="fewer")
        cursor = cursor_of(client)
        produce_everywhere(core, "second")
        async with visiting(core, person("global"), replace(V1, cursor=parse(cursor))) as denied:
            pass
        assert texts(denied) == ["second in global"]
        assert told(denied, "hello")[0]["resume"] == "exact"
        produce_everywhere(core, "third")
        async with visiting(core, person("*"), replace(V1, cursor=parse(cursor_of(denied)))) as allowed:
            pass
    assert sorted(map(str, texts(allowed))) == sorted([
        "third in global", "second in room1", "third in room1", "second in room2", "third in room2",
    ])  # fmt: skip


@pytest.mark.promise("p-challenge")
async def test_a_token_is_asked_for_before_it_ends_and_a_new_one_lets_the_session_go_on(autojump_clock: MockClock):
    tokens = {b"next": person("*", seconds=3600)}
    async with core_of(tokens) as core, visiting(core, person("*", seconds=600)) as client:
        await trio.sleep(569)
        assert not told(client, "challenge")
        await trio.sleep(16.5)
        [challenge] = told(client, "challenge")
        assert 14 <= challenge["expires_in"] <= 30
        found = await answer(client, op="auth", token="next")
        assert 3000 <= found["expires_in"] <= 3600  # of which this test's clock has jumped over a part
        await trio.sleep(100)
        assert client.closed is None
        assert len(told(client, "challenge")) == 1


@pytest.mark.promise("p-challenge")
@pytest.mark.parametrize(("seconds", "least", "most"), [(40, 15, 20), (10, 4, 5), (3, None, None)])
async def test_a_short_token_is_asked_for_halfway(seconds: int, least: int | None, most: int, autojump_clock: MockClock):
    async with core_of() as core, visiting(core, person("*", seconds=seconds)) as client:
        await trio.sleep(seconds - 0.5)
        found = [challenge["expires_in"] for challenge in told(client, "challenge")]
    assert [least <= left <= most for left in found] == [True] if least is not None else not found


async def test_who_has_no_newer_token_is_not_asked_for_it_again_and_again(autojump_clock: MockClock):
    tokens: dict[bytes, Identity] = {}
    async with core_of(tokens) as core, visiting(core, person("*", seconds=40)) as client:
        ends_at = trio.current_time() + 40
        asked = 0
        while client.closed is None:
            while asked < len(told(client, "challenge")):
                asked += 1
                tokens[b"same"] = person("*", seconds=ends_at - trio.current_time())  # by this test's clock
                client.say('{"op":"auth","token":"same"}')
            await trio.sleep(0.5)
    assert 2 <= asked <= 5


@pytest.mark.promise("p-token-ends")
@pytest.mark.parametrize("options", [V1, SessionOptions()])
async def test_a_session_ends_with_its_token(options: SessionOptions, autojump_clock: MockClock):
    async with core_of() as core, visiting(core, person("*", seconds=600), options) as client:
        await trio.sleep(599)
        assert client.closed is None
        await trio.sleep(2)
        assert client.closed == (4401, "the token has expired; connect with a new one")


async def test_an_event_stream_ends_with_its_cursor(autojump_clock: MockClock):
    options = SessionOptions(format=Format.EVENTS)
    client = FakeClient()
    async with core_of() as core, core.connected(client, options=options, identity=person("*", seconds=60)):
        await trio.sleep(61)
        assert client.closed is not None
        *_, last = bytes(client.got).decode().split("event: ")
    assert last.startswith("reconnect\n")
    assert '"cursor":"A' in last


@pytest.mark.promise("p-op-auth")
@pytest.mark.parametrize(("token", "code"), [(b"bob", 4403), (b"anonymous", 4403), (REFUSED, 4401)])
async def test_with_the_token_of_somebody_else_or_a_bad_one_the_session_ends(token: bytes, code: int, autojump_clock: MockClock):
    tokens = {b"bob": person("*", user="bob"), b"anonymous": person("*", user=None)}
    async with core_of(tokens) as core, visiting(core, person("*")) as client:
        client.say(json.dumps({"op": "auth", "token": token.decode()}))
        await trio.sleep(1)
        assert client.closed is not None
        assert client.closed[0] == code
        assert token.decode() not in client.closed[1]


async def test_while_the_keys_are_not_known_the_old_token_stays_in_force(autojump_clock: MockClock):
    async with core_of() as core, visiting(core, person("*", seconds=600)) as client:
        found = await answer(client, op="auth", token=UNKNOWN.decode())
        assert (found["type"], found["code"]) == ("error", 503)
        assert client.closed is None


async def test_the_op_auth_is_not_there_while_access_is_off(autojump_clock: MockClock):
    async with open_core() as core, visiting(core, EVERYBODY) as client:
        found = await answer(client, op="auth", token="x")
    assert found["message"] == "op is 'auth'; it may be subscribe, unsubscribe, send or ping"


async def test_thousands_of_tokens_that_end_at_once_do_not_hold_the_loop(autojump_clock: MockClock):
    clients = [FakeClient() for _ in range(2000)]
    async with core_of() as core, trio.open_nursery() as nursery:

        async def stay(client: FakeClient, *, task_status: trio.TaskStatus[None]) -> None:
            async with core.connected(client, options=V1, identity=person("*", seconds=600)):
                task_status.started()
                await trio.sleep_forever()

        for client in clients:
            await nursery.start(stay, client)
        await wait_all_tasks_blocked()
        gc.disable()  # the young that a collection would look at here are those of two thousand clients of the test itself
        try:
            with loop_steps() as steps:
                await trio.sleep(601)
        finally:
            gc.enable()
        assert {client.closed for client in clients} == {(4401, "the token has expired; connect with a new one")}
        assert steps.longest[0].ms <= MOST_MS, steps.longest
        assert len(core.context.deadlines) == 0
        nursery.cancel_scope.cancel()


async def test_rights_to_thousands_of_chats_change_in_turns(autojump_clock: MockClock):
    chats = [f"chat{number}" for number in range(2000)]
    tokens = {b"fewer": person("global")}
    async with core_of(tokens) as core:
        for chat in chats:
            core.kafka.create(TOPIC + chat)
        core.chats["ann"] = {"global", *chats}
        async with visiting(core, person("*")) as client:
            await trio.sleep(1)
            with loop_steps() as steps:
                found = await answer(client, op="auth", token="fewer")
            assert found["denied"] == sorted(chats)
            assert steps.longest[0].ms <= MOST_MS, steps.longest
            produce_everywhere(core, "new")
        assert texts(client) == ["new in global"]
        assert len(told(client, "unsubscribed")) == 2000
