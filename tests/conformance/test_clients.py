"""What every client of kafka-chat.v1 must do, whatever happens to its connections; README.md says how to test another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from kafka_chat.chat.resume_cursor import parse
from kafka_chat.client.come_again import CLOSE_CODES
from tests.conformance.client import running
from tests.conformance.service import Chat, FakeService, Visit, cursor_of
from tests.support.deadlines import HANG_SECONDS

if TYPE_CHECKING:
    from tests.conformance.client import Client, Told

pytestmark = pytest.mark.deadline(150)

USERNAME = "zoë & co"
ROOM = Chat("room1")
BEGINNING = cursor_of({ROOM: [0, 0]})

# docs/protocol.md, "When to reconnect": the table of the Python client, which a test compares with it; and codes that it does not name.
NEVER_SENT = {1005, 1006, 1014, 1015}  # they stand for what was not said; and there are libraries that take 1014 for an error
AGAIN = [*sorted(code for code, pause in CLOSE_CODES.items() if pause is not None and code not in NEVER_SENT), 3000]
FINAL = [*sorted(code for code, pause in CLOSE_CODES.items() if pause is None), 4429, 4499]

Run = Callable[..., "AsyncIterator[Client]"]


@pytest.fixture
def client(command: list[str], service: FakeService, tmp_path: Path):
    """Run the client under test against the service, with further arguments."""

    @asynccontextmanager
    async def run(*arguments: str) -> AsyncIterator[Client]:
        async with running(command, service.url, USERNAME, *arguments, folder=tmp_path) as client:
            yield client

    return run


def message(offset: int, *, partition: int = 0, chat: str = "room1") -> Told:
    return ("message", chat, partition, offset, f"{chat} {partition} {offset}")


def messages(*offsets: int) -> list[Told]:
    return [message(offset) for offset in offsets]


# --- beginning


async def test_it_asks_for_v1_as_its_user_and_for_no_other_beginning(client: Run, service: FakeService):
    async with client():
        visit = await service.visit()
        assert visit.knows_v1
        assert visit.username == USERNAME
        assert visit.query.keys() <= {"meta", "heartbeat"}


async def test_it_shows_each_message_as_it_came(client: Run, service: FakeService):
    frames = [
        ROOM.message(0),
        ROOM.message(1, text='"quoted"\n\\ € \U0001f600 \u2028', tag="", sender="Zoë", time=None, key={"base64": "/w=="}),
        ROOM.message(2, text="", tag="blue", key="k", headers=[["trace", "7f"], ["trace", None], ["", {"base64": "AA=="}]]),
        ROOM.message(3, text="x" * 300_000),
    ]
    frames += [{**frame, "meta": {**frame["meta"], "left_out": ["headers", "key"]}} for frame in [ROOM.message(4)]]
    async with client() as told:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(*frames)
        await told.tells(*[("message", "room1", 0, offset, frame["text"]) for offset, frame in enumerate(frames)])
        assert told.messages == frames


async def test_it_hands_over_the_beginning_that_it_is_given(client: Run, service: FakeService):
    async with client(f"--cursor={BEGINNING}"):
        visit = await service.visit()
        assert visit.resumed == parse(BEGINNING)


async def test_it_waits_for_a_handshake_and_a_hello_that_take_their_time(client: Run, service: FakeService):
    async with client() as told:
        visit = await service.visit()
        await trio.sleep(3)  # no luck is waited for: the service needs so long where no broker answers
        await visit.accept()
        await trio.sleep(6)  # and so long where a cursor is ahead of a partition
        await visit.hello(BEGINNING)
        await visit.send(ROOM.message(0))
        await told.tells(message(0))
        assert service.nobody_came()


async def test_it_answers_pings(client: Run, service: FakeService):
    async with client() as told:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.ping()
        await visit.ponged()
        await visit.send(ROOM.message(0))
        await told.tells(message(0))


# --- coming back


async def fin(visit: Visit) -> None:
    await visit.cut()


async def rst(visit: Visit) -> None:
    await visit.reset()


async def in_a_frame(visit: Visit) -> None:
    await visit.cut_in_a_frame()


@pytest.mark.parametrize("cut", [fin, rst, in_a_frame])
async def test_it_comes_back_after_a_cut_and_asks_for_exactly_what_it_missed(
    client: Run, service: FakeService, cut: Callable[[Visit], Awaitable[None]]
):
    async with client() as told:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(ROOM.message(0), ROOM.message(0, partition=1), ROOM.message(1), ROOM.message(4))
        seen = [message(0), message(0, partition=1), message(1), message(4)]
        await told.tells(*seen)
        await cut(visit)

        again = await service.visit()
        assert again.username == USERNAME
        assert again.knows_v1
        assert again.resumed == parse(cursor_of({ROOM: [5, 1]}))
        await again.greet(cursor_of({ROOM: [5, 1]}), resume="exact")
        await again.send(ROOM.message(5), ROOM.message(1, partition=1))
        await told.tells(*seen, message(5), message(1, partition=1))


async def test_it_comes_back_where_it_began_when_nothing_has_come_yet(client: Run, service: FakeService):
    async with client() as told:
        visit = await service.visit()
        await visit.accept()
        await visit.hello(BEGINNING)
        await visit.cut()
        again = await service.visit()
        assert again.resumed == parse(BEGINNING)
        await again.greet(BEGINNING, resume="exact")
        await again.send(ROOM.message(0))
        await told.tells(message(0))


async def test_it_tries_again_when_the_first_connection_is_cut_before_its_hello(client: Run, service: FakeService):
    async with client(f"--cursor={BEGINNING}") as told:
        visit = await service.visit()
        await visit.accept()
        await visit.cut()
        again = await service.visit()
        assert again.resumed == parse(BEGINNING)
        await again.greet(BEGINNING, resume="exact")
        await again.send(ROOM.message(0))
        await told.tells(message(0))


@pytest.mark.parametrize("status", [408, 429, 503])
async def test_it_tries_again_when_it_cannot_be_let_in_now(client: Run, service: FakeService, status: int):
    async with client() as told:
        visit = await service.visit()
        await visit.refuse(status, "there is no place left", retry_after="1")
        again = await service.visit()
        await again.greet(BEGINNING)
        await again.send(ROOM.message(0))
        await told.tells(message(0))


@pytest.mark.promise("p-cursor-of-ids")
async def test_the_cursor_of_a_control_frame_counts_and_the_ids_since(client: Run, service: FakeService):
    async with client() as told:
        visit = await service.visit()
        await visit.accept()
        await visit.hello(BEGINNING)
        await visit.send(ROOM.message(0), ROOM.message(3, partition=1))
        await visit.control("heartbeat", cursor=cursor_of({ROOM: [7, 9]}, subscriptions=4))  # through what a filter held back
        await visit.send(ROOM.message(8))
        seen = [message(0), message(3, partition=1), message(8)]
        await told.tells(*seen)
        await visit.cut()
        again = await service.visit()
        assert again.resumed == parse(cursor_of({ROOM: [9, 9]}, subscriptions=4))


async def test_it_comes_back_with_the_cursor_of_live(client: Run, service: FakeService):
    async with client() as told:
        visit = await service.visit()
        await visit.accept()
        await visit.hello(BEGINNING)
        await visit.send(ROOM.message(2))
        await visit.control("live", cursor=cursor_of({ROOM: [6, 2]}))
        await told.tells(message(2))
        await visit.cut()
        assert (await service.visit()).resumed == parse(cursor_of({ROOM: [6, 2]}))


async def test_it_keeps_its_place_through_many_cuts(client: Run, service: FakeService):
    async with client() as told:
        for offset in range(4):
            visit = await service.visit()
            if offset:
                assert visit.resumed == parse(cursor_of({ROOM: [offset, 0]}))
            await visit.greet(cursor_of({ROOM: [offset, 0]}), resume="exact" if offset else "none")
            await visit.send(ROOM.message(offset))
            await told.tells(*messages(*range(offset + 1)))
            await visit.cut()


@pytest.mark.parametrize("code", AGAIN)
@pytest.mark.promise("p-come-again")
async def test_it_comes_back_after_a_code_that_says_so(client: Run, service: FakeService, code: int):
    async with client() as told:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(ROOM.message(0))
        await visit.close(code, "come again")
        again = await service.visit()
        assert again.resumed == parse(cursor_of({ROOM: [1, 0]}))
        await again.greet(cursor_of({ROOM: [1, 0]}), resume="exact")
        await again.send(ROOM.message(1))
        await told.tells(*messages(0, 1))


@pytest.mark.parametrize("code", [1012, 1013])
async def test_it_stays_away_for_as_long_as_a_service_that_restarts_says(client: Run, service: FakeService, code: int):
    async with client() as told:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(ROOM.message(0))
        await told.tells(message(0))
        await visit.control("reconnect", after_ms=3000, cursor=cursor_of({ROOM: [1, 4]}))
        told_at = trio.current_time()
        await visit.close(code, "come again")
        again = await service.visit()
        assert trio.current_time() - told_at >= 2.9  # its clock is not ours
        assert again.resumed == parse(cursor_of({ROOM: [1, 4]}))


async def test_it_notices_that_the_other_end_is_gone_without_a_word(client: Run, service: FakeService):
    async with client() as told:
        visit = await service.visit()
        await visit.greet(BEGINNING, most_heartbeat_seconds=1)
        await visit.send(ROOM.message(0))
        await told.tells(message(0))
        visit.fall_silent()
        again = await service.visit(seconds=120)
        assert again.resumed == parse(cursor_of({ROOM: [1, 0]}))
        await again.greet(cursor_of({ROOM: [1, 0]}), resume="exact")
        await again.send(ROOM.message(1))
        await told.tells(*messages(0, 1))


# --- cursors that are long


LONG = cursor_of({Chat(f"room{number}"): [number] * 6 for number in range(200)})


async def test_a_cursor_that_is_too_long_for_an_address_is_the_first_frame(client: Run, service: FakeService):
    assert len(LONG) > 4096
    async with client(f"--cursor={LONG}") as told:
        visit = await service.visit()
        assert visit.query["cursor"] == ["frame"]
        await visit.accept()
        first = await visit.next_frame()
        assert first["op"] == "start"
        assert parse(first["cursor"]) == parse(LONG)
        await visit.hello(LONG, resume="exact")
        await visit.send(ROOM.message(1))
        await told.tells(message(1))
        await visit.cut()

        again = await service.visit()
        assert again.query["cursor"] == ["frame"]
        await again.accept()
        assert parse((await again.next_frame())["cursor"]) == parse(f"{LONG}.{ROOM.id_of(1)}")


async def test_a_cursor_of_4_kib_stands_in_the_address(client: Run, service: FakeService):
    cursor = cursor_of({Chat(f"room{number}"): [number] * 6 for number in range(120)})
    assert 3000 < len(cursor) <= 4096
    async with client(f"--cursor={cursor}"):
        assert (await service.visit()).resumed == parse(cursor)


# --- nothing twice, nothing passed over in silence


async def test_what_a_service_repeats_after_a_resume_is_not_shown_again(client: Run, service: FakeService):
    async with client() as told:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(ROOM.message(0), ROOM.message(1), ROOM.message(0, partition=1))
        seen = [message(0), message(1), message(0, partition=1)]
        await told.tells(*seen)
        await visit.cut()
        again = await service.visit()
        await again.greet(BEGINNING, resume="exact")
        await again.send(ROOM.message(0), ROOM.message(1), ROOM.message(2), ROOM.message(0, partition=1), ROOM.message(1, partition=1))
        await told.tells(*seen, message(2), message(1, partition=1))


async def test_what_a_service_repeats_on_one_connection_is_not_shown_again(client: Run, service: FakeService):
    async with client() as told:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(*(ROOM.message(offset) for offset in (0, 1, 1, 0, 2)))
        await told.tells(*messages(0, 1, 2))


async def test_offsets_that_are_missing_are_no_reason_to_wait(client: Run, service: FakeService):
    async with client() as told:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(*(ROOM.message(offset) for offset in (0, 5, 1000, 2**53 - 2)))
        await told.tells(*messages(0, 5, 1000, 2**53 - 2))


async def test_a_gap_is_told_before_the_message_after_it(client: Run, service: FakeService):
    async with client() as told:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(ROOM.message(0))
        await told.tells(message(0))
        await visit.cut()
        again = await service.visit()
        await again.accept()
        await again.hello(cursor_of({ROOM: [1, 0]}), resume="gap")
        await again.send(ROOM.gap(1, 41, "retention"), ROOM.message(41))
        await told.tells(message(0), ("gap", "room1", 0, 1, 41, "retention"), message(41))


@pytest.mark.promise("p-skipped")
async def test_a_message_that_is_not_delivered_is_told_in_its_place_once_and_not_asked_for_again(client: Run, service: FakeService):
    def skipped(offset: int) -> Told:
        return ("skipped", "room1", 0, offset, "too_large")

    async with client() as told:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(ROOM.message(0), ROOM.skipped(1), ROOM.skipped(1), ROOM.message(2), ROOM.skipped(3))
        seen = [message(0), skipped(1), message(2), skipped(3)]
        await told.tells(*seen)
        await visit.cut()
        again = await service.visit()
        assert again.resumed == parse(cursor_of({ROOM: [4, 0]}))
        await again.greet(cursor_of({ROOM: [4, 0]}), resume="exact")
        await again.send(ROOM.skipped(3), ROOM.message(4))
        await told.tells(*seen, message(4))


async def test_after_a_topic_was_made_anew_its_first_messages_are_shown(client: Run, service: FakeService):
    async with client() as told:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(*(ROOM.message(offset) for offset in (0, 1, 2)))
        anew = Chat("room1", "the second")
        await visit.send(ROOM.gap(3, 0, "recreated"), anew.message(0), anew.message(1), anew.message(1))
        seen = [*messages(0, 1, 2), ("gap", "room1", 0, 3, 0, "recreated"), *messages(0, 1)]
        await told.tells(*seen)
        await visit.cut()
        again = await service.visit()
        assert again.resumed == parse(f"{BEGINNING}.{anew.id_of(1)}")
        await again.greet(cursor_of({anew: [2, 0]}), resume="exact")
        await again.send(anew.message(2))
        await told.tells(*seen, message(2))


async def test_of_a_topic_that_was_made_anew_while_its_chat_was_left_the_first_messages_are_shown(client: Run, service: FakeService):
    async with client() as told:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.send(*(ROOM.message(offset) for offset in (0, 1, 2)))
        await visit.control("unsubscribed", chat="room1", exists=True, positions={"0": 3, "1": 0})
        await visit.control("subscribed", chat="room1", exists=True, positions={"0": 1, "1": 0})
        anew = Chat("room1", "the second")
        await visit.send(anew.message(1), anew.message(2))
        await told.tells(*messages(0, 1, 2), *messages(1, 2))


async def test_after_a_log_has_lost_its_end_what_is_written_anew_is_shown(client: Run, service: FakeService):
    async with client(f"--cursor={cursor_of({ROOM: [9, 0]})}") as told:
        visit = await service.visit()
        await visit.accept()
        await visit.hello(cursor_of({ROOM: [4, 0]}), resume="future")
        await visit.send(ROOM.gap(9, 4, "truncated"), ROOM.message(4), ROOM.message(5))
        seen = [("gap", "room1", 0, 9, 4, "truncated"), *messages(4, 5)]
        await told.tells(*seen)
        await visit.cut()
        again = await service.visit()
        assert again.resumed == parse(cursor_of({ROOM: [6, 0]}))
        await again.accept()
        await again.hello(cursor_of({ROOM: [5, 0]}), resume="future")
        await again.send(ROOM.gap(6, 5, "truncated"), ROOM.message(5))
        await told.tells(*seen, ("gap", "room1", 0, 6, 5, "truncated"), message(5))


# --- what it does not know


@pytest.mark.promise("p-unknown-types")
async def test_types_and_fields_that_it_does_not_know_are_passed_over(client: Run, service: FakeService):
    async with client() as told:
        visit = await service.visit()
        await visit.accept()
        await visit.hello(BEGINNING, colour="blue", nested={"type": "gap"})
        await visit.control("weather", chat="room1", cursor_of="nothing", re=None)
        await visit.send(ROOM.message(0, colour="blue") | {"more": [1]})
        await visit.control("error", code=409, message="an answer to nobody", field=None)
        await visit.control("subscribed", chat="room2", exists=False, positions={})
        await visit.send(ROOM.message(1))
        await told.tells(*messages(0, 1))
        assert service.nobody_came()


# --- ends


@pytest.mark.parametrize("code", FINAL)
@pytest.mark.promise("p-come-again")
async def test_it_ends_after_a_code_that_is_final_and_says_why(client: Run, service: FakeService, code: int):
    async with client() as told:
        visit = await service.visit()
        await visit.accept()
        await visit.close(code, "the reason, in words")
        await told.tells(("final", code))
        assert told.reason == "the reason, in words"
        with trio.fail_after(HANG_SECONDS):
            await told.ended.wait()
        assert service.nobody_came()


async def test_until_is_reached_with_all_before_it_shown(client: Run, service: FakeService):
    async with client("--until=-1m") as told:
        visit = await service.visit()
        assert visit.query["until"] == ["-1m"]
        await visit.accept()
        await visit.hello(BEGINNING)
        await visit.send(*(ROOM.message(offset) for offset in range(100)))
        await visit.close(1000, "until is reached")
        await told.tells(*messages(*range(100)), ("final", 1000))
        with trio.fail_after(HANG_SECONDS):
            await told.ended.wait()
        assert service.nobody_came()


async def test_what_limits_it_holds_for_every_connection_and_its_beginning_for_the_first(client: Run, service: FakeService):
    async with client("--from=-15m", "--until=-1m", "--chat=room1", "--chat=room2") as told:
        visit = await service.visit()
        assert visit.query["from"] == ["-15m"]
        assert visit.query["chat"] == ["room1", "room2"]
        await visit.greet(BEGINNING)
        await visit.send(ROOM.message(0))
        await told.tells(message(0))
        await visit.cut()
        again = await service.visit()
        assert again.resumed == parse(cursor_of({ROOM: [1, 0]}))
        assert "from" not in again.query  # what the cursor does not name was subscribed to since, and begins there
        assert again.query["until"] == ["-1m"]
        assert again.query["chat"] == ["room1", "room2"]


async def test_it_says_where_to_begin_again_when_it_was_given_no_cursor(client: Run, service: FakeService):
    async with client("--from=-15m") as told:
        visit = await service.visit()
        await visit.accept()
        await visit.hello(None)  # no broker answered
        await visit.cut()
        again = await service.visit()
        assert again.resumed is None
        assert again.query["from"] == ["-15m"]
        await again.greet(BEGINNING)
        await again.send(ROOM.message(0))
        await told.tells(message(0))


async def test_a_service_that_does_not_know_v1_is_told_of_and_nothing_of_it_shown(client: Run, service: FakeService):
    async with client() as told:
        with trio.fail_after(HANG_SECONDS):
            while not told.ended.is_set():
                try:
                    visit = await service.visit(seconds=1)
                except trio.TooSlowError:
                    continue
                await visit.accept(v1=False)
                with trio.move_on_after(5):
                    await visit.try_to_send({"sender": "ann", "text": "hello", "tag": None, "chat": "room1"})
        assert [kind for kind, *_ in told.told] == ["final"]
        assert told.reason
