"""A client of a dialogue is answered message by message, in order, and ends like a listening one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.delivery.log.memory import Memory
from kafka_chat.delivery.records.frames import text_payloads
from kafka_chat.delivery.session.dialogue import MESSAGE_BYTES, WAITING_BYTES, Answering, Dialogue
from kafka_chat.delivery.session.live_socket import Close
from kafka_chat.telemetry.metrics import Telemetry
from tests.support.fakes import FakeClient

Answer = Callable[[str | bytes], Awaitable[bytes]]


async def echo(said: str | bytes) -> bytes:
    await trio.lowlevel.checkpoint()
    return said.encode() if isinstance(said, str) else said


class Gate:
    """Answers when it is opened; `asked` is what it has begun with, `answered` what it has finished."""

    def __init__(self) -> None:
        self.asked: list[str | bytes] = []
        self.answered: list[str | bytes] = []
        self.open = trio.Event()

    async def __call__(self, said: str | bytes) -> bytes:
        self.asked.append(said)
        await self.open.wait()
        self.answered.append(said)
        return await echo(said)


def dialogue(answer: Answer = echo, *, opening: Callable[[], Awaitable[bytes]] | None = None, memory: Memory | None = None) -> Dialogue:
    answering = Answering(answer=answer, opening=opening)
    return Dialogue(answering, username="ann", memory=memory or Memory(1 << 20), telemetry=Telemetry())


@asynccontextmanager
async def running(live: Dialogue, client: FakeClient) -> AsyncIterator[list[int]]:
    """Run it while the block runs, at most; yields the code that it ended with."""
    codes: list[int] = []

    async def run() -> None:
        codes.append(await live.run(client, client))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield codes
        nursery.cancel_scope.cancel()


@pytest.mark.promise("p-dialogue-answers")
async def test_each_message_is_answered_by_one_frame_in_order():
    client, live = FakeClient(), dialogue()
    said = [f"m{n}" for n in range(200)]
    for message in said:
        client.say(message)
    async with running(live, client):
        await wait_all_tasks_blocked()
        assert text_payloads(client.got) == [message.encode() for message in said]
        client.say("x" * 70_000)
        await wait_all_tasks_blocked()
        assert text_payloads(client.got)[-1] == b"x" * 70_000
    assert (live.messages, live.bytes_sent) == (201, len(client.got))


@pytest.mark.promise("p-dialogue-address")
async def test_what_stands_in_the_address_is_answered_first_and_nothing_is_sent_unasked():
    client, live = FakeClient(), dialogue()
    async with running(live, client):
        await wait_all_tasks_blocked()
        assert client.got == b""

    async def opening() -> bytes:
        await trio.lowlevel.checkpoint()
        return b"opening"

    client, live = FakeClient(), dialogue(opening=opening)
    client.say("first")
    async with running(live, client):
        await wait_all_tasks_blocked()
        assert text_payloads(client.got) == [b"opening", b"first"]


@pytest.mark.promise("p-dialogue-in-turn")
async def test_one_message_is_answered_at_a_time():
    gate, client = Gate(), FakeClient()
    async with running(dialogue(gate), client):
        client.say("a")
        client.say("b")
        await wait_all_tasks_blocked()
        assert gate.asked == ["a"]
        gate.open.set()
        await wait_all_tasks_blocked()
        assert gate.asked == ["a", "b"]


async def test_a_thousand_messages_at_once_are_answered_and_one_more_is_too_much(autojump_clock):
    client, live = FakeClient(), dialogue()
    for n in range(1000):
        client.say(str(n))
    async with running(live, client) as codes:
        await wait_all_tasks_blocked()
        assert len(text_payloads(client.got)) == 1000
        client.say("one more")
        await wait_all_tasks_blocked()
        assert codes == [1008]
    assert client.closed == (1008, "over 1000 messages in 10 s")


async def test_who_takes_its_time_may_say_more(autojump_clock):
    client, live = FakeClient(), dialogue()
    async with running(live, client) as codes:
        for _ in range(3):
            for n in range(900):
                client.say(str(n))
            await trio.sleep(11)
        assert codes == []
    assert len(text_payloads(client.got)) == 2700


async def test_what_fills_the_room_to_the_byte_is_not_too_much():
    gate, client = Gate(), FakeClient()
    client.say("x" * (WAITING_BYTES - MESSAGE_BYTES))
    client.say("y")
    client.say("z")
    async with running(dialogue(gate), client):
        await wait_all_tasks_blocked()
        assert await client.receive() == "z"  # which the dialogue has not taken: "y" is more than there is room for


@pytest.mark.promise("p-dialogue-waiting")
async def test_who_has_much_waiting_is_not_read_from_until_there_is_room():
    gate, client = Gate(), FakeClient()
    heard = 0
    receive = client.receive

    async def counted():
        nonlocal heard
        said = await receive()
        heard += 1
        return said

    client.receive = counted
    for _ in range(20):
        client.say("x" * 60_000)
    async with running(dialogue(gate), client):
        await wait_all_tasks_blocked()
        assert heard == WAITING_BYTES // 60_000 + 1
        gate.open.set()
        await wait_all_tasks_blocked()
        assert heard == 20
    assert len(text_payloads(client.got)) == 20


async def test_what_was_asked_before_the_client_left_is_done_and_not_written(autojump_clock):
    gate, client, live = Gate(), FakeClient(), dialogue()
    live = dialogue(gate)
    for message in ("a", "b"):
        client.say(message)
    client.leave(1001)
    async with running(live, client) as codes:
        await wait_all_tasks_blocked()
        gate.open.set()
        await wait_all_tasks_blocked()
        assert codes == [1001]
    assert gate.answered == ["a", "b"]
    assert client.got == b""
    assert live.messages == 0


@pytest.mark.promise("p-dialogue-last-words")
async def test_a_client_that_left_is_not_waited_for_longer_than_a_second(autojump_clock):
    gate, client = Gate(), FakeClient()
    client.say("a")
    client.leave(1001)
    with trio.fail_after(1.5):
        assert await dialogue(gate).run(client, client) == 1001
    assert gate.answered == []


async def test_a_client_that_reads_nothing_holds_one_answer_and_what_it_asked():
    client = FakeClient(room=10)
    live = dialogue()
    for n in range(500):
        client.say(f"message {n}")
    async with running(live, client):
        await wait_all_tasks_blocked()
        assert client.owed < 20
        client.make_room(float("inf"))
        await wait_all_tasks_blocked()
        assert len(text_payloads(client.got)) == 500


async def test_an_end_from_outside_is_a_close_frame_also_while_an_answer_is_awaited(autojump_clock):
    gate, client = Gate(), FakeClient()
    live = dialogue(gate)
    client.say("a")
    async with running(live, client) as codes:
        await wait_all_tasks_blocked()
        live.end(Close(code=1012, reason="restart"))
        with trio.fail_after(1):
            await wait_all_tasks_blocked()
        assert codes == [1012]
    assert client.closed == (1012, "restart")
    assert gate.answered == []


async def test_a_bug_in_an_answer_ends_it_with_1011(caplog: pytest.LogCaptureFixture):
    async def broken(said: str | bytes) -> bytes:
        raise RuntimeError("a bug")

    client = FakeClient()
    client.say("a")
    live = dialogue(broken)
    assert await live.run(client, client) == 1011
    assert client.closed is not None
    assert client.closed[0] == 1011
    assert f"session.failed session={live.session_id} " in caplog.text


@pytest.mark.parametrize("steps", range(1, 40))
async def test_cancelled_at_any_checkpoint_it_ends_at_once(autojump_clock, steps: int):
    gate, client = Gate(), FakeClient(room=30)
    before = trio.lowlevel.current_statistics().tasks_living
    for n in range(5):
        client.say(f"message {n}")

    async def live() -> None:
        await dialogue(gate).run(client, client)

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            for step in range(steps):
                await trio.lowlevel.checkpoint()
                if step == 10:
                    gate.open.set()
                if step == 20:
                    client.make_room(float("inf"))
                if step == 30:
                    client.leave()
            nursery.cancel_scope.cancel()
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_what_waits_for_its_answer_and_what_is_not_read_is_counted_and_no_longer_once_it_has_ended():
    memory, gate = Memory(1 << 20), Gate()
    client, live = FakeClient(0), dialogue(gate, memory=memory)
    async with running(live, client):
        for _ in range(10):
            client.say("x" * 10_000)
        await wait_all_tasks_blocked()
        assert 100_000 < memory.owed_bytes < 110_000
        gate.open.set()
        await wait_all_tasks_blocked()
        assert 110_000 < memory.owed_bytes < 120_000  # one answer that the client does not read
    assert memory.owed_bytes == 0
