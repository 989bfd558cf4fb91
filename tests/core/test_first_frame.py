"""A client whose cursor comes as its first frame has ten seconds for it, and learns what is wrong with it."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.access.decision import KeysNotKnown, Unauthorized
from kafka_chat.access.identity import EVERYBODY, PENDING, Identity
from kafka_chat.access.rights import Rights
from kafka_chat.chat.resume_cursor import parse
from kafka_chat.delivery.session.first_frame import FirstFrame
from kafka_chat.delivery.session.live_socket import RESTARTS, Close
from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.delivery.session.slots import Slots
from kafka_chat.errors import Overloaded
from kafka_chat.telemetry.metrics import Telemetry
from tests.conformance.service import Chat, cursor_of
from tests.support.fakes import FakeClient

CURSOR = cursor_of({Chat("room1"): [5]})


class Admission:
    """What keeps the options of a client until its session begins."""

    def __init__(self, options: SessionOptions | None = None, identity: Identity = EVERYBODY) -> None:
        self.options = options or SessionOptions(cursor_in_frame=True)
        self.username = "ann"
        self.identity = identity

    def identify(self, identity: Identity) -> None:
        self.identity = identity


async def heard(client: FakeClient) -> tuple[FirstFrame, Admission, int]:
    admission = Admission()
    first = FirstFrame(admission, peer="127.0.0.1", identify=None, telemetry=Telemetry())
    return first, admission, await first.run(client, client)


async def test_the_cursor_of_the_first_frame_is_that_of_the_session_and_the_second_frame_is_left_to_it(autojump_clock: MockClock):
    client = FakeClient()
    client.say(json.dumps({"op": "start", "cursor": CURSOR}))
    client.say("next")
    first, admission, _ = await heard(client)
    assert first.came
    assert client.closed is None
    assert admission.options == SessionOptions(cursor=parse(CURSOR))
    assert await client.receive() == "next"


async def test_a_client_that_leaves_before_is_gone_with_its_own_close_code(autojump_clock: MockClock):
    client = FakeClient()
    client.leave(4001)
    first, admission, code = await heard(client)
    assert (first.came, code, client.closed) == (False, 4001, None)
    assert admission.options.cursor_in_frame


@pytest.mark.parametrize(
    "said", ['{"op":"ping"}', '{"op":"start"}', f'{{"op":"ping","cursor":"{CURSOR}"}}', '{"op":"start","cursor":"%"}', "hello", b"\0"]
)
async def test_any_other_first_frame_is_refused(said: str | bytes, autojump_clock: MockClock):
    client = FakeClient()
    client.say(said)
    first, admission, code = await heard(client)
    assert not first.came
    assert admission.options.cursor is None
    assert client.closed is not None
    assert client.closed[0] == code == 4400


async def test_who_says_nothing_is_waited_for_ten_seconds(autojump_clock: MockClock):
    client, admission = FakeClient(), Admission()
    first = FirstFrame(admission, peer="127.0.0.1", identify=None, telemetry=Telemetry())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run, client, client)
        await trio.sleep(9.9)
        assert client.closed is None
        await trio.sleep(0.2)
    assert client.closed == (4408, "cursor=frame: no frame came within 10 s")
    assert not first.came


async def test_a_restart_meanwhile_is_told_as_to_anybody(autojump_clock: MockClock):
    client, admission = FakeClient(), Admission()
    first = FirstFrame(admission, peer="127.0.0.1", identify=None, telemetry=Telemetry())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run, client, client)
        await wait_all_tasks_blocked()
        first.end(Close(code=RESTARTS, reason="the service restarts"))
    assert client.closed == (RESTARTS, "the service restarts")
    [frame] = client.deliveries
    meta: dict[str, object] = frame["meta"]  # type: ignore[assignment]
    assert (meta["type"], meta["cursor"]) == ("reconnect", None)


ANN = Identity(user="ann", rights=Rights.parse(["room*"]))


async def identify(token: bytes | None, peer: str) -> Identity:
    await trio.lowlevel.checkpoint()
    if token is None:
        return Identity(user=None, rights=Rights.parse(["global"]))
    if token == b"unknown":
        raise KeysNotKnown
    if token != b"ann":
        raise Unauthorized
    return ANN


@pytest.mark.promise("p-start-frame")
@pytest.mark.parametrize("cursor", [None, CURSOR])
async def test_a_token_comes_with_the_cursor_or_without_one(cursor: str | None, autojump_clock: MockClock):
    client, admission = FakeClient(), Admission(SessionOptions(start_in_frame=True, chats=("room1",)), PENDING)
    client.say(json.dumps({"op": "start", "token": "ann", "cursor": cursor}))
    first = FirstFrame(admission, peer="127.0.0.1", identify=identify, telemetry=Telemetry())
    await first.run(client, client)
    assert first.came
    assert admission.identity == ANN
    assert admission.options == SessionOptions(chats=("room1",), cursor=None if cursor is None else parse(cursor))


@pytest.mark.promise("p-first-frame-token")
@pytest.mark.parametrize(
    ("start", "username", "chat", "code"),
    [
        ({"token": "bad"}, "ann", "room1", 4401),
        ({"token": ""}, "ann", "room1", 4401),
        ({}, "ann", "room1", 4401),  # nobody reads only `global`
        ({"token": "ann"}, "bob", "room1", 4403),
        ({"token": "ann"}, "ann", "global", 4403),
        ({"token": "unknown"}, "ann", "room1", 1013),
        ({"token": 7}, "ann", "room1", 4400),
    ],
)
async def test_who_may_not_begin_is_told_so_and_its_token_is_not(
    start: dict[str, object], username: str, chat: str, code: int, autojump_clock: MockClock
):
    client, admission = FakeClient(), Admission(SessionOptions(start_in_frame=True, chats=(chat,)), PENDING)
    admission.username = username
    client.say(json.dumps({"op": "start", **start}))
    first = FirstFrame(admission, peer="127.0.0.1", identify=identify, telemetry=Telemetry())
    await first.run(client, client)
    assert not first.came
    assert admission.identity is PENDING
    assert client.closed is not None
    assert client.closed[0] == code
    assert "bad" not in client.closed[1]


async def test_without_a_token_the_first_frame_reads_what_anybody_may(autojump_clock: MockClock):
    client, admission = FakeClient(), Admission(SessionOptions(start_in_frame=True, chats=("global",)), PENDING)
    client.say('{"op":"start"}')
    first = FirstFrame(admission, peer="127.0.0.1", identify=identify, telemetry=Telemetry())
    await first.run(client, client)
    assert first.came
    assert admission.identity.is_anonymous


async def test_a_second_token_is_refused(autojump_clock: MockClock):
    client, admission = FakeClient(), Admission(SessionOptions(start_in_frame=True), ANN)
    client.say('{"op":"start","token":"ann"}')
    first = FirstFrame(admission, peer="127.0.0.1", identify=identify, telemetry=Telemetry())
    await first.run(client, client)
    assert client.closed is not None
    assert client.closed[0] == 4400


def test_a_tenth_of_the_slots_at_most_is_of_clients_that_have_not_brought_their_token():
    slots, options = Slots(20, catching_up_limit=20), SessionOptions(start_in_frame=True)
    pending = [slots.take("ann", options, PENDING) for _ in range(2)]
    with pytest.raises(Overloaded, match="first frame"):
        slots.take("ann", options, PENDING)
    pending[0].identify(ANN)
    with slots.take("ann", options, PENDING):
        assert slots.pending == 2
    assert slots.pending == 1
    with pending[0], pending[1]:
        assert slots.taken == 2
    assert (slots.pending, slots.taken, slots.catching_up) == (0, 0, 0)
