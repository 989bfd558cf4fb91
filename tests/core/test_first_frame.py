"""A client whose cursor comes as its first frame is heard once, for ten seconds, and told what it did wrong."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.chat.resume_cursor import parse
from kafka_chat.delivery.session.first_frame import FirstFrame
from kafka_chat.delivery.session.live_socket import RESTARTS, Close
from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.telemetry.metrics import Telemetry
from tests.conformance.service import Chat, cursor_of
from tests.support.fakes import FakeClient

CURSOR = cursor_of({Chat("room1"): [5]})


class Admission:
    """What keeps the options of a client until its session begins."""

    def __init__(self) -> None:
        self.options = SessionOptions(cursor_in_frame=True)
        self.username = "ann"


async def heard(client: FakeClient) -> tuple[FirstFrame, Admission, int]:
    admission = Admission()
    first = FirstFrame(admission, telemetry=Telemetry())
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
    first = FirstFrame(admission, telemetry=Telemetry())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run, client, client)
        await trio.sleep(9.9)
        assert client.closed is None
        await trio.sleep(0.2)
    assert client.closed == (4408, "cursor=frame: no frame came within 10 s")
    assert not first.came


async def test_a_restart_meanwhile_is_told_as_to_anybody(autojump_clock: MockClock):
    client, admission = FakeClient(), Admission()
    first = FirstFrame(admission, telemetry=Telemetry())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run, client, client)
        await wait_all_tasks_blocked()
        first.end(Close(code=RESTARTS, reason="the service restarts"))
    assert client.closed == (RESTARTS, "the service restarts")
    [frame] = client.deliveries
    meta: dict[str, object] = frame["meta"]  # type: ignore[assignment]
    assert (meta["type"], meta["cursor"]) == ("reconnect", None)
