"""How a `Chat` behaves towards its caller: what it delivers and when, what it sends, how it ends."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import WebSocketConnection, wrap_client_stream, wrap_server_stream

from kafka_chat.client import Away, Chat, Gap, Heartbeat, Hello, Live, Message, Refused, Subscribed, open_chat
from kafka_chat.client.backoff import Pauses
from kafka_chat.client.chat import _Visit
from kafka_chat.client.connection import PONG_SECONDS, QUIET_SECONDS, Connection
from kafka_chat.client.event_queue import QUEUED_EVENTS, Arrivals
from tests.conformance.service import Chat as Room
from tests.conformance.service import FakeService, Visit, cursor_of, open_fake_service

ROOM = Room("room1")
BEGINNING = cursor_of({ROOM: [0]})


@pytest.fixture
async def service() -> AsyncIterator[FakeService]:
    async with open_fake_service() as service:
        yield service


async def next_message(chat: Chat) -> Message:
    while not isinstance(event := await anext(chat), Message):
        pass
    return event


async def test_it_is_told_as_whom_it_is_taken_and_what_it_may_not_read(service: FakeService):
    told: list[str] = []
    async with open_chat(service.url, "ann", tell=told.append) as chat, aclosing(chat):
        visit = await service.visit()
        await visit.accept()
        await visit.hello(BEGINNING, user_from="anonymous", denied=["global", "room1"])
        assert isinstance(hello := await anext(chat), Hello)
    assert (hello.user_from, hello.denied) == ("anonymous", ("global", "room1"))
    assert told == [f"connected to {service.url} as nobody, because no token is shown", "not to be read: global, room1"]


# --- what the caller is handed


async def test_events_come_in_their_order_and_the_cursor_is_behind_what_was_taken(service: FakeService):
    async with open_chat(service.url, "ann") as chat, aclosing(chat):
        visit = await service.visit()
        await visit.accept()
        await visit.hello(BEGINNING)
        await visit.send(ROOM.message(0), ROOM.gap(1, 5, "retention"), ROOM.message(5))
        await visit.control("live", cursor=cursor_of({ROOM: [6]}))
        await visit.control("heartbeat", cursor=cursor_of({ROOM: [9]}))
        seen = []
        for kind, cursor in [
            (Hello, BEGINNING),
            (Message, f"{BEGINNING}.{ROOM.id_of(0)}"),
            (Gap, f"{BEGINNING}.{ROOM.id_of(0)}"),
            (Message, f"{BEGINNING}.{ROOM.id_of(5)}"),
            (Live, cursor_of({ROOM: [6]})),
            (Heartbeat, cursor_of({ROOM: [9]})),
        ]:
            event = await anext(chat)
            seen.append(event)
            assert isinstance(event, kind)
            assert chat.cursor == cursor


async def test_a_cut_while_the_caller_is_slow_repeats_nothing_and_its_cursor_waits_for_it(service: FakeService):
    async with open_chat(service.url, "ann") as chat:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(*(ROOM.message(offset) for offset in range(5)))
        assert (await next_message(chat)).offset == 0
        taken = chat.cursor
        await visit.cut()
        again = await service.visit()
        assert again.query["cursor"] == [f"{BEGINNING}.{ROOM.id_of(4)}"]
        assert chat.cursor == taken == f"{BEGINNING}.{ROOM.id_of(0)}"
        await again.greet(cursor_of({ROOM: [5]}), resume="exact")
        await again.send(ROOM.message(4), ROOM.message(5))
        assert [(await next_message(chat)).offset for _ in range(5)] == [1, 2, 3, 4, 5]


async def test_a_cursor_of_another_cluster_is_told_as_a_gap(service: FakeService):
    async with open_chat(service.url, "ann", cursor=BEGINNING) as chat:
        visit = await service.visit()
        await visit.greet(cursor_of({ROOM: [3]}))
        assert isinstance(await anext(chat), Hello)
        assert await anext(chat) == Gap(chat=None, partition=None, first_lost=None, first_left=None, cause="cluster")


async def test_a_beginning_is_asked_for_again_where_the_service_did_not_know_its_place_yet(service: FakeService):
    async with open_chat(service.url, "ann", from_="earliest") as chat:
        visit = await service.visit()
        await visit.accept()
        await visit.hello(None)  # type: ignore[arg-type]  # as while no broker answers
        assert isinstance(await anext(chat), Hello)
        await visit.cut()
        again = await service.visit()
        assert again.query["from"] == ["earliest"]
        assert "cursor" not in again.query


async def test_a_subscription_that_was_made_elsewhere_is_an_event(service: FakeService):
    async with open_chat(service.url, "ann") as chat:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.control("subscribed", chat="room2", exists=True, positions={"0": 4})
        assert [type(await anext(chat)) for _ in range(2)] == [Hello, Live]
        assert await anext(chat) == Subscribed(chat="room2", exists=True, positions={0: 4})


async def test_a_caller_that_is_slow_is_not_read_for(service: FakeService):
    async with open_chat(service.url, "ann") as chat:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        count = 20 * QUEUED_EVENTS
        sent = trio.Event()

        async def send() -> None:
            await visit.send(*(ROOM.message(offset, text="x" * 20_000) for offset in range(count)))
            sent.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert (await next_message(chat)).offset == 0
            assert not sent.is_set()
            assert [(await next_message(chat)).offset for _ in range(count - 1)] == list(range(1, count))


# --- what it asks


async def answer(visit: Visit, kind: str, **fields: object) -> dict[str, Any]:
    """Answer the next op, and return it."""
    op = await visit.next_frame()
    await visit.control(kind, re=op["re"], **fields)
    return op


async def test_ops_are_answered_whatever_comes_between(service: FakeService):
    async with open_chat(service.url, "ann") as chat, trio.open_nursery() as nursery:
        visit = await service.visit()
        await visit.greet(BEGINNING)

        async def serve() -> None:
            assert (await answer(visit, "subscribed", chat="room2", exists=False, positions={}))["chat"] == "room2"
            assert (await answer(visit, "unsubscribed", chat="room2", exists=False, positions={}))["op"] == "unsubscribe"
            op = await visit.next_frame()
            assert (op["op"], op["chat"], op["text"], op["tag"]) == ("send", "room1", "hi", "t")
            # Far more than is queued: the answer is behind it, and nobody takes events meanwhile.
            await visit.send(*(ROOM.message(offset) for offset in range(5 * QUEUED_EVENTS)))
            await visit.control("sent", re=op["re"], chat="room1", partition=0, offset=7)
            await answer(visit, "error", code=409, message="you follow 200 chats", field="chat")
            await answer(visit, "error", code=503, message="no broker answers", field=None)

        nursery.start_soon(serve)
        assert not (await chat.subscribe("room2")).exists
        assert (await chat.unsubscribe("room2")).chat == "room2"
        sent = await chat.send("room1", "hi", tag="t")
        assert (sent.chat, sent.partition, sent.offset) == ("room1", 0, 7)
        with pytest.raises(Refused, match=r"^you follow 200 chats \(409\)$") as refused:
            await chat.subscribe("room3")
        assert (refused.value.code, refused.value.field) == (409, "chat")
        with pytest.raises(Away, match="no broker answers") as away:
            await chat.subscribe("room3")
        assert away.value.code == 503
        await chat.ping()  # the service of this suite answers by itself
        assert [(await next_message(chat)).offset for _ in range(5 * QUEUED_EVENTS)] == list(range(5 * QUEUED_EVENTS))


async def test_an_error_that_nobody_asked_for_is_told(service: FakeService):
    told: list[str] = []
    async with open_chat(service.url, "ann", tell=told.append) as chat:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.control("error", re=None, code=400, message="the message is binary")
        await visit.send(ROOM.message(0))
        assert (await next_message(chat)).offset == 0
    assert "the service reports an error: the message is binary (400)" in told


async def test_a_message_whose_answer_was_cut_off_is_not_sent_twice_and_a_subscription_is_asked_again(service: FakeService):
    async with open_chat(service.url, "ann") as chat, trio.open_nursery() as nursery:
        outcomes: list[object] = []

        async def send() -> None:
            with pytest.raises(Away, match="may or may not have been carried out"):
                await chat.send("room1", "hi")
            outcomes.append("unknown")

        async def follow() -> None:
            outcomes.append((await chat.subscribe("room2")).chat)

        visit = await service.visit()
        await visit.greet(BEGINNING)
        nursery.start_soon(send)
        assert (await visit.next_frame())["op"] == "send"
        nursery.start_soon(follow)
        assert (await visit.next_frame())["op"] == "subscribe"
        await visit.cut()
        again = await service.visit()
        await again.greet(BEGINNING, resume="exact")
        assert (await answer(again, "subscribed", chat="room2", exists=True, positions={}))["op"] == "subscribe"
    assert outcomes == ["unknown", "room2"]


async def test_a_message_that_is_longer_than_the_service_takes_does_not_cost_the_connection(service: FakeService):
    async with open_chat(service.url, "ann") as chat:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        with pytest.raises(Refused, match="at most 65536 are allowed"):
            await chat.send("room1", "ü" * 32_768)
        await chat.ping()


async def test_so_many_ops_wait_as_the_service_allows(service: FakeService):
    async with open_chat(service.url, "ann") as chat, trio.open_nursery() as nursery:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        for number in range(50):
            nursery.start_soon(chat.send, "room1", str(number))
        asked = [await visit.next_frame() for _ in range(24)]
        with pytest.raises(trio.TooSlowError):
            await visit.next_frame(seconds=0.2)
        for number in range(50):
            op = asked[number] if number < 24 else await visit.next_frame()
            await visit.control("sent", re=op["re"], chat="room1", partition=0, offset=number)


# --- how it ends


async def test_until_ends_the_loop(service: FakeService):
    async with open_chat(service.url, "ann", until="-1m") as chat:
        visit = await service.visit()
        await visit.accept()
        await visit.hello(BEGINNING)
        await visit.send(ROOM.message(0))
        await visit.close(1000, "until is reached")
        assert [type(event) async for event in chat] == [Hello, Message]
        assert chat.cursor == f"{BEGINNING}.{ROOM.id_of(0)}"
        with pytest.raises(Away, match="ended"):
            await chat.ping()


async def test_a_refusal_comes_after_what_came_before_it_to_whoever_iterates_or_asks(service: FakeService):
    async with open_chat(service.url, "ann") as chat:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(ROOM.message(0))
        await visit.close(1008, "you talk too much")
        with pytest.raises(Refused, match="1008 you talk too much"):
            await chat.ping()
        seen = []
        with pytest.raises(Refused, match="1008 you talk too much") as refused:  # noqa: PT012 - the loop raises
            async for event in chat:
                seen.append(type(event))  # noqa: PERF401 - until it raises
        assert seen == [Hello, Live, Message]
        assert (refused.value.code, refused.value.reason) == (1008, "you talk too much")


async def test_a_refusal_before_the_accept_is_the_sentence_of_the_service(service: FakeService):
    async with open_chat(service.url, "ann") as chat:
        await (await service.visit()).refuse(403, "a page of this origin may not use the service")
        with pytest.raises(Refused, match=r"may not use the service \(403\)"):
            await anext(chat)


@pytest.mark.parametrize("status", [408, 429, 503])
async def test_who_is_told_to_come_later_does_not_come_sooner(service: FakeService, status: int):
    async with open_chat(service.url, "ann") as chat:
        visit = await service.visit()
        told_at = trio.current_time()
        await visit.refuse(status, "not now", retry_after="1")
        again = await service.visit()
        assert trio.current_time() - told_at >= 1
        await again.greet(BEGINNING)
        assert isinstance(await anext(chat), Hello)


async def test_what_the_block_raises_comes_out_as_it_is(service: FakeService):
    with pytest.raises(LookupError):  # noqa: PT012 - it is about blocks
        async with open_chat(service.url, "ann"):
            await service.visit()
            raise LookupError


async def test_it_leaves_in_order(service: FakeService):
    async with trio.open_nursery() as nursery:
        left = trio.Event()

        async def chat() -> None:
            async with open_chat(service.url, "ann") as chat:
                await next_message(chat)
            left.set()

        nursery.start_soon(chat)
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(ROOM.message(0))
        await visit.ended()  # by a close frame, which it answers
        await left.wait()


async def test_frames_that_are_none_of_the_protocol_end_it(service: FakeService):
    async with open_chat(service.url, "ann") as chat:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send({"surprise": True})
        assert [type(await anext(chat)) for _ in range(2)] == [Hello, Live]
        with pytest.raises(Refused, match="does not speak kafka_chat's protocol"):
            await anext(chat)


# --- a service that does not speak v1


async def test_a_service_that_does_not_speak_v1_is_refused_unless_bare_messages_will_do(service: FakeService):
    async with open_chat(service.url, "ann") as chat:
        await (await service.visit()).accept(v1=False)
        with pytest.raises(Refused, match=r"does not speak kafka-chat\.v1$") as refused:
            await anext(chat)
        assert refused.value.code == 1002


async def test_bare_messages_come_with_a_word_of_warning_and_without_ops(service: FakeService):
    told: list[str] = []
    async with open_chat(service.url, "ann", bare=True, tell=told.append) as chat:
        visit = await service.visit()
        await visit.accept(v1=False)
        await visit.send({"sender": "ann", "text": "hello", "tag": None, "chat": "room1"})
        message = await next_message(chat)
        assert (message.text, message.id, message.offset, chat.cursor) == ("hello", None, None, None)
        assert told == [
            f"connected to {service.url} as ann",
            "it does not speak kafka-chat.v1: messages sent while the connection is lost will not arrive",
        ]
        with pytest.raises(Refused, match=r"does not speak kafka-chat\.v1, so nothing can be asked"):
            await chat.ping()
        await visit.close(1000)
        again = await service.visit()  # the service may have been replaced
        await again.greet(BEGINNING)
        await chat.ping()
        assert [type(await anext(chat)) for _ in range(2)] == [Hello, Live]


async def test_who_has_a_place_waits_for_an_instance_that_knows_what_it_is(service: FakeService):
    async with open_chat(service.url, "ann", bare=True) as chat:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.cut()
        await (await service.visit()).accept(v1=False)
        again = await service.visit()
        assert again.query["cursor"] == [BEGINNING]
        await again.greet(BEGINNING, resume="exact")
        assert [type(await anext(chat)) for _ in range(4)] == [Hello, Live, Hello, Live]


# --- a connection that has died without a word


async def connected(ours: trio.Nursery, theirs: trio.Nursery) -> tuple[Connection, WebSocketConnection]:
    """Return a connection and its peer, whose tasks are each in a nursery of their own."""
    near, far = trio.testing.memory_stream_pair()
    hand_over, accepted = trio.open_memory_channel[WebSocketConnection](1)

    async def accept() -> None:
        request = await wrap_server_stream(theirs, far)  # type: ignore[arg-type]
        await hand_over.send(await request.accept(subprotocol="kafka-chat.v1"))

    theirs.start_soon(accept)
    socket = await wrap_client_stream(ours, near, "host", "/", subprotocols=["kafka-chat.v1"])  # type: ignore[arg-type]
    return Connection(socket, ours), await accepted.receive()


async def test_a_peer_that_answers_pings_may_be_quiet_forever(autojump_clock: trio.testing.MockClock):
    async with trio.open_nursery() as nursery:
        connection, peer = await connected(nursery, nursery)

        async def speak() -> None:
            await trio.sleep(86_400)
            await peer.send_message("at last")

        nursery.start_soon(peer.get_message)
        nursery.start_soon(speak)
        assert await connection.receive() == "at last"
        assert trio.current_time() >= 86_400
        nursery.cancel_scope.cancel()


async def test_a_peer_that_answers_no_ping_is_gone(autojump_clock: trio.testing.MockClock):
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as theirs:
            connection, _ = await connected(nursery, theirs)
            theirs.cancel_scope.cancel()
        begun = trio.current_time()
        assert await connection.receive() == (1006, "the service no longer answers")
        assert math.isclose(trio.current_time() - begun, QUIET_SECONDS + PONG_SECONDS)
        nursery.cancel_scope.cancel()


async def test_ops_are_paced_as_the_service_wants(autojump_clock: trio.testing.MockClock):
    async with trio.open_nursery() as nursery:
        connection, peer = await connected(nursery, nursery)
        begun = trio.current_time()
        for number in range(2000):
            connection.say({"op": "ping", "number": number})
        times = []
        for _ in range(2000):
            await peer.get_message()
            times.append(trio.current_time() - begun)
        assert max(times[:900]) < 1
        for first in range(2000 - 1000):
            assert times[first + 1000 - 1] - times[first] >= 9.9
        nursery.cancel_scope.cancel()


async def test_an_answer_that_is_awaited_makes_room_for_what_comes_before_it():
    arrivals = Arrivals()
    async with trio.open_nursery() as nursery:

        async def put() -> None:
            for _ in range(3 * QUEUED_EVENTS):
                await arrivals.put(Live())
            arrivals.end()

        nursery.start_soon(put)
        await trio.testing.wait_all_tasks_blocked()
        with arrivals.unbounded():
            await trio.testing.wait_all_tasks_blocked()
        taken = 0
        while await arrivals.take() is not None:
            taken += 1
        assert taken == 3 * QUEUED_EVENTS


async def test_a_connection_that_was_live_or_lasted_half_a_minute_is_no_failed_try(autojump_clock: trio.testing.MockClock):
    await trio.sleep(1000)
    visit = _Visit()
    assert not visit.steady
    visit.begun = trio.current_time()
    assert not visit.steady
    visit.note(Heartbeat(cursor=None))
    assert not visit.steady
    await trio.sleep(30.5)
    assert visit.steady
    visit = _Visit(begun=trio.current_time())
    visit.note(Live(cursor=None))
    assert visit.steady


async def test_a_queue_has_room_for_so_many_events_and_for_any_number_while_an_answer_is_awaited(autojump_clock: trio.testing.MockClock):
    arrivals = Arrivals()

    async def put_several(count: int) -> int:
        """Put events until one has to wait; return how many went in."""
        for done in range(count):
            with trio.move_on_after(1) as waited:
                await arrivals.put(Heartbeat(cursor=str(done)))
            if waited.cancelled_caught:
                return done
        return count

    assert await put_several(2 * QUEUED_EVENTS) == QUEUED_EVENTS
    assert await arrivals.take() == Heartbeat(cursor="0")
    assert await put_several(5) == 1
    with arrivals.unbounded():
        assert await put_several(QUEUED_EVENTS) == QUEUED_EVENTS
    assert await put_several(5) == 0
    arrivals.end()
    taken = 0
    while await arrivals.take() is not None:
        taken += 1
    assert taken == 2 * QUEUED_EVENTS


async def test_who_is_told_when_to_come_again_comes_then(autojump_clock: trio.testing.MockClock):
    told: list[str] = []
    async with open_chat("http://127.0.0.1:9", "ann", tell=told.append) as chat:
        begun = trio.current_time()
        visit = _Visit(restarts=True, away_until=begun + 0.25)
        await chat._stay_away(Pauses(), visit, 1012, "the service restarts")
        assert math.isclose(trio.current_time() - begun, 0.25)
        await chat._stay_away(Pauses(), _Visit(restarts=True), 1012, "the service restarts")
        assert math.isclose(trio.current_time() - begun, 0.25)
        await chat.aclose()
    assert "the service restarts; reconnecting in 0.2 s" in told
    assert "the service restarts; reconnecting" in told


async def test_what_waits_for_room_goes_in_when_there_is_some_and_a_take_lets_others_run(autojump_clock: trio.testing.MockClock):
    arrivals = Arrivals()
    for number in range(QUEUED_EVENTS):
        await arrivals.put(Heartbeat(cursor=str(number)))
    went_in: list[str] = []

    async def put(cursor: str) -> None:
        await arrivals.put(Heartbeat(cursor=cursor))
        went_in.append(cursor)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, "later")
        await trio.testing.wait_all_tasks_blocked()
        assert went_in == []
        with trio.testing.assert_checkpoints():
            assert await arrivals.take() == Heartbeat(cursor="0")
        await trio.testing.wait_all_tasks_blocked()
        assert went_in == ["later"]
        nursery.start_soon(put, "while an answer is awaited")
        await trio.testing.wait_all_tasks_blocked()
        assert went_in == ["later"]
        with arrivals.unbounded():
            await trio.testing.wait_all_tasks_blocked()
        assert went_in == ["later", "while an answer is awaited"]
