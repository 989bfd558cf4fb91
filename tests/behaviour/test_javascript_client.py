"""`kafka-chat.js` in Node: each op is answered once, and wrong arguments are reported."""

from __future__ import annotations

import json
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import kafka_chat.web
from tests.conformance.client import running
from tests.conformance.service import Chat, FakeService, Frame, Visit, cursor_of, open_fake_service
from tests.support.calls import running as running_service
from tests.support.cursor_bytes import first_id
from tests.support.deadlines import HANG_SECONDS
from tests.support.node import node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conformance.client import Client
    from tests.support.brokers import Broker
    from tests.support.chats import Chats

CLIENT = Path(kafka_chat.web.__file__).with_name("browser_client") / "kafka-chat.js"
COMMAND = Path(__file__).parents[1] / "conformance" / "javascript_client.mjs"
ROOM = Chat("room1")
BEGINNING = cursor_of({ROOM: [0]})
SEND = ("send", "room1", "hi")


@pytest.fixture
async def service() -> AsyncIterator[FakeService]:
    async with open_fake_service() as service:
        yield service


@asynccontextmanager
async def calling(service: FakeService, folder: Path, *calls: tuple[str, ...], times: int = 1) -> AsyncIterator[Client]:
    """Run the client, with these calls made at its start."""
    arguments = [f"--call={json.dumps(call)}" for call in calls]
    async with running([node(), str(COMMAND)], service.url, "ann", *arguments, f"--times={times}", folder=folder) as client:
        yield client


async def greeted(service: FakeService) -> Visit:
    visit = await service.visit()
    await visit.greet(BEGINNING)
    return visit


def sent(frame: Frame, offset: int = 0) -> dict[str, object]:
    return {"type": "sent", "chat": frame["chat"], "partition": 0, "offset": offset, "re": frame["re"]}


async def test_calls_are_asked_after_hello_in_order_and_answered(service: FakeService, tmp_path: Path):
    async with calling(service, tmp_path, ("subscribe", "room2"), ("send", "room2", "hi"), ("unsubscribe", "room2")) as client:
        visit = await greeted(service)
        frames = [await visit.next_frame() for _ in range(3)]
        assert [{name: value for name, value in frame.items() if name != "re"} for frame in frames] == [
            {"op": "subscribe", "chat": "room2"},
            {"op": "send", "chat": "room2", "text": "hi", "tag": None},
            {"op": "unsubscribe", "chat": "room2"},
        ]
        about = {"chat": "room2", "exists": True, "positions": {"0": 3}}
        await visit.control("subscribed", **about, re=frames[0]["re"])
        await visit.control(**{"kind": "sent", **{name: value for name, value in sent(frames[1], 3).items() if name != "type"}})
        await visit.control("error", code=409, message="everybody follows room2", field="chat", re=frames[2]["re"])
        assert await client.answers_to(3) == [
            {"answer": {"name": "subscribe", **about}},
            {"answer": {"name": "send", "chat": "room2", "partition": 0, "offset": 3}},
            {"refused": {"name": "unsubscribe", "code": 409, "field": "chat", "message": "everybody follows room2"}},
        ]


async def test_a_subscription_whose_answer_was_cut_off_is_asked_for_again(service: FakeService, tmp_path: Path):
    async with calling(service, tmp_path, ("subscribe", "room2")) as client:
        visit = await greeted(service)
        asked = await visit.next_frame()
        await visit.cut()
        again = await greeted(service)
        assert await again.next_frame() == asked
        await again.control("subscribed", chat="room2", exists=True, positions={"0": 3}, re=asked["re"])
        assert len(await client.answers_to(1)) == 1


async def test_a_message_whose_answer_was_cut_off_is_not_sent_again_and_its_sender_knows(service: FakeService, tmp_path: Path):
    async with calling(service, tmp_path, SEND, ("subscribe", "room2")) as client:
        visit = await greeted(service)
        assert (await visit.next_frame())["op"] == "send"
        await visit.cut()
        again = await greeted(service)
        assert (await again.next_frame())["op"] == "subscribe"
        ((kind, about),) = (await client.answers_to(1))[0].items()
        assert (kind, about["name"], about["code"]) == ("refused", "send", 0)


async def test_no_more_is_asked_at_a_time_than_the_service_takes(service: FakeService, tmp_path: Path):
    async with calling(service, tmp_path, SEND, times=100) as client:
        visit = await greeted(service)
        frames = [await visit.next_frame() for _ in range(24)]
        await visit.ping()
        await visit.ponged()  # behind whatever else it had written
        assert visit.said_nothing()
        for number in range(100):
            await visit.send({"meta": sent(frames[number], number)})
            if len(frames) < 100:
                frames.append(await visit.next_frame())
        assert [answer["answer"]["offset"] for answer in await client.answers_to(100)] == list(range(100))


async def test_no_more_is_asked_in_ten_seconds_than_the_service_takes(service: FakeService, tmp_path: Path):
    async with calling(service, tmp_path, SEND, times=950) as client:
        visit = await greeted(service)
        came: list[float] = []
        for number in range(950):
            frame = await visit.next_frame()
            came.append(trio.current_time())
            await visit.send({"meta": sent(frame, number)})
        assert came[900] - came[0] >= 9.9  # its clock is not ours
        assert len(await client.answers_to(950)) == 950


async def test_nothing_is_asked_of_a_service_that_is_about_to_restart(service: FakeService, tmp_path: Path):
    async with calling(service, tmp_path, SEND, times=30):
        visit = await greeted(service)
        frames = [await visit.next_frame() for _ in range(24)]
        await visit.control("reconnect", after_ms=100, cursor=BEGINNING)
        for frame in frames:
            await visit.send({"meta": sent(frame)})
        await visit.close(1012)
        again = await greeted(service)
        for _ in range(6):
            assert (await again.next_frame())["op"] == "send"


async def test_what_is_waiting_when_the_end_comes_is_refused(service: FakeService, tmp_path: Path):
    async with calling(service, tmp_path, SEND, ("subscribe", "room2")) as client:
        visit = await service.visit()
        await visit.accept()
        await visit.close(4400, "cursor: this is not a cursor")
        refused = [answer["refused"] for answer in await client.answers_to(2)]
        assert {about["message"] for about in refused} == {"it is closed: 4400 cursor: this is not a cursor"}


async def test_a_proxy_that_drops_the_subprotocol_is_got_around(service: FakeService, tmp_path: Path):
    async with calling(service, tmp_path) as client:
        first = await service.visit()
        assert first.protocols == ["kafka-chat.v1"]
        await first.accept(v1=False)
        second = await service.visit()
        assert second.protocols == []
        assert second.query["meta"] == ["1"]
        await second.greet(BEGINNING)
        await second.send(ROOM.message(0))
        await client.tells(("message", "room1", 0, 0, "room1 0 0"))
        await second.cut()
        assert (await service.visit()).query["meta"] == ["1"]


async def test_what_comes_again_from_a_later_version_of_the_service_is_not_shown_again(service: FakeService, tmp_path: Path):
    def first(offset: int) -> Frame:
        return ROOM.message(offset, id=first_id(ROOM.topic, ROOM.identity, 0, offset))

    async with calling(service, tmp_path) as client:
        visit = await greeted(service)
        await visit.send(first(0), first(1))
        await visit.cut()
        again = await service.visit()
        await again.greet(BEGINNING, resume="exact")
        await again.send(ROOM.message(0), ROOM.message(1), ROOM.message(2))
        await client.tells(*(("message", "room1", 0, offset, f"room1 0 {offset}") for offset in range(3)))


async def run_script(script: str, *arguments: str) -> str:
    """Run a module that imports the client, and return what it printed."""
    code = f"import {{ KafkaChat }} from {json.dumps(str(CLIENT))};\n{script}"
    command = [node(), "--input-type=module", "--eval", code, "--", *arguments]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, stdin=b"")
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("url", "username", "complaint"),
    [
        ("localhost:8001", "ann", "no address of a service"),
        ("ftp://127.0.0.1", "ann", "no address of a service"),
        ("nowhere", "ann", "Invalid URL"),
        ("http://127.0.0.1:1", "", "cannot stand in an address"),
        ("http://127.0.0.1:1", "..", "cannot stand in an address"),
    ],
)
async def test_an_address_that_is_none_is_told_at_once(url: str, username: str, complaint: str):
    script = "try { new KafkaChat(...process.argv.slice(1)) } catch (error) { console.log(error.name, error.message) }"
    said = await run_script(script, url, username)
    assert said.startswith("TypeError ")
    assert complaint in said


async def test_a_callback_that_throws_is_heard_of_and_costs_no_message(service: FakeService):
    script = """
        process.on("uncaughtException", (error) => console.log("thrown", error.message));
        const chat = new KafkaChat(process.argv[1], "ann", { onMessage: ({ text }) => { console.log(text); throw new Error(text) } });
        await chat.closed;
        console.log(chat.cursor === process.argv[2]);
    """

    async def serve() -> None:
        visit = await greeted(service)
        await visit.send(ROOM.message(0, text="one"), ROOM.message(1, text="two"))
        await visit.close(1000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        said = await run_script(script, service.url, f"{BEGINNING}.{ROOM.id_of(1)}")
    assert sorted(said.splitlines()) == ["one", "thrown one", "thrown two", "true", "two"]


async def test_a_message_that_the_service_would_close_on_is_not_written(service: FakeService):
    script = """
        const chat = new KafkaChat(process.argv[1], "ann");
        chat.send("room1", "€".repeat(22_000)).catch(({ code, message }) => console.log(code, message));
        console.log((await chat.send("room1", "hi")).offset);
        chat.close();
    """

    async def serve() -> None:
        visit = await greeted(service)
        frame = await visit.next_frame()
        assert frame["text"] == "hi"
        await visit.send({"meta": sent(frame, 7)})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        said = await run_script(script, service.url)
    assert said.splitlines() == ["413 it has 66056 bytes; at most 65536 are allowed", "7"]


async def test_a_cursor_is_loaded_first_and_saved_before_the_end(service: FakeService):
    script = """
        const saved = [];
        const chat = new KafkaChat(process.argv[1], "ann", { load: async () => process.argv[2], save: (cursor) => saved.push(cursor) });
        await chat.closed;
        console.log(JSON.stringify(saved));
    """

    async def serve() -> None:
        visit = await service.visit()
        assert visit.query["cursor"] == [BEGINNING]
        await visit.greet(BEGINNING, resume="exact")
        await visit.send(ROOM.message(0), ROOM.message(1))
        await visit.close(1000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        said = await run_script(script, service.url, BEGINNING)
    assert json.loads(said)[-1] == f"{BEGINNING}.{ROOM.id_of(1)}"


async def test_it_can_be_closed_from_every_callback(service: FakeService):
    script = """
        for (const name of ["onState", "onControl", "onMessage", "onGap"]) {
          const chat = new KafkaChat(process.argv[1], "ann", { [name]: () => chat.close() });
          console.log(JSON.stringify(await chat.closed));
        }
    """

    async def serve() -> None:
        while True:
            visit = await service.visit()
            await visit.accept()
            nursery.start_soon(visit.try_to_send, *FRAMES)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        said = await run_script(script, service.url)
        nursery.cancel_scope.cancel()
    assert said.splitlines() == ['{"code":1000,"reason":""}'] * 4


async def test_a_username_that_is_not_legal_ends_with_its_reason(embedded: Broker, chats: Chats, tmp_path: Path):
    async with running_service(chats.settings_for(embedded), check_leaks=False) as server:  # the command has a pipe
        async with running([node(), str(COMMAND)], server.url, "a\nb", folder=tmp_path) as client:
            await client.tells(("final", 4400))
        assert client.reason.startswith("username has a control character")


HELLO = {"type": "hello", "session": "1", "user": "ann", "chats": ["room1"], "resume": "none", "cursor": BEGINNING, "limits": {}}
FRAMES = ({"meta": HELLO}, ROOM.message(0), ROOM.gap(1, 5, "retention"))


def test_it_is_a_module_that_node_takes_as_it_is():
    subprocess.run([node(), "--check", str(CLIENT)], check=True, timeout=HANG_SECONDS)
