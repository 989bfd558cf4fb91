"""What every kind of sink guarantees, and what is left after many clients."""

from __future__ import annotations

import os
import random
import threading
from contextlib import suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from kafka_chat.delivery.ports import Disconnect
from kafka_chat.delivery.records.frames import text_header
from kafka_chat.settings.model import Limits
from kafka_chat.web.streams.websocket_sink import AsgiSink, ConnectionSink, cut_reason
from tests.edges.small_app import PATH, serving_small
from tests.support.leaks import tasks
from tests.support.raw_client import Opcode, client_frame, close_code, open_raw


def text(payload: bytes) -> bytes:
    return text_header(len(payload)) + payload


class Server:
    """An ASGI server that takes messages when it is let."""

    def __init__(self) -> None:
        self.sent: list[dict[str, object]] = []
        self.aborted = 0
        self.open = trio.Event()

    async def send(self, message: dict[str, object]) -> None:
        await self.open.wait()
        self.sent.append(message)

    def abort(self) -> None:
        self.aborted += 1


@pytest.mark.parametrize("kind", ["connection", "asgi"])
async def test_a_sink_delivers_closes_and_takes_nothing_more(kind: str):
    async with serving_small() as served, open_raw(served.url, PATH) as client:
        sink = await served.service.sink()
        assert isinstance(sink, ConnectionSink)
        if kind == "asgi":
            sink = AsgiSink(sink._send, abort=sink._connection.abort, write_seconds=5)
        for number in range(200):
            if not sink.offer(text(b"%d" % number) + text(b"again")):
                assert await sink.flush()
            assert sink.owed == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.close, 1008, "é" * 80)
            nursery.start_soon(sink.close, 1011, "not this one")
            frames = []
            while not frames or frames[-1].opcode is not Opcode.CLOSE:
                frames.append(await client.next_frame())
            await client.send_frame(Opcode.CLOSE, frames[-1].payload[:2])
            assert await client.read_to_end() == []
        texts = [frame.payload for frame in frames if frame.opcode is Opcode.TEXT]
        assert texts == [part for number in range(200) for part in (b"%d" % number, b"again")]
        assert close_code(frames[-1]) in ((1008, "é" * 59 + " …"), (1011, "not this one"))
        assert not sink.offer(text(b"late"))
        assert not await sink.flush()
        assert sink.owed == 0
        await sink.close(1000, "")
        sink.abort()


async def test_an_asgi_sink_gives_up_on_a_server_that_takes_nothing():
    server = Server()
    sink = AsgiSink(server.send, abort=server.abort, write_seconds=0.05)
    sink.offer(text(b"a") + text(b"b"))
    assert sink.owed == 6
    assert not await sink.flush()
    assert (server.aborted, sink.owed, server.sent) == (1, 0, [])


async def test_an_asgi_sink_whose_flush_is_cancelled_sends_nothing_twice():
    server = Server()
    sink = AsgiSink(server.send, abort=server.abort, write_seconds=5)
    sink.offer(text(b"a") + text(b"b"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.flush)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sink.owed == 3
    server.open.set()
    assert await sink.flush()
    assert [message["text"] for message in server.sent] == ["b"]


@pytest.mark.parametrize(
    ("reason", "cut"),
    [
        ("fits", "fits"),
        ("x" * 123, "x" * 123),
        ("\ud800", "?"),
        ("", ""),
        ("six words, " * 12, ("six words, " * 10).rstrip() + " six …"),
        ("word " * 23 + "abcd uvwxyz", "word " * 23 + "abcd …"),  # 119 bytes and a whole word: no byte is wasted
        ("x" * 200, "x" * 119 + " …"),  # of a word that is longer than all that there is room for, the beginning
        ("€" * 50, "€" * 39 + " …"),
    ],
)
def test_a_reason_is_cut_between_words(reason: str, cut: str):
    assert cut_reason(reason) == cut


@given(st.text(st.characters(codec=None, categories=None), max_size=200))
@pytest.mark.promise("p-close-reason")
def test_a_reason_fits_in_a_close_frame_and_ends_with_a_whole_word(reason: str):
    cut = cut_reason(reason)
    assert len(cut.encode()) <= 123
    if cut.endswith(" …") and " " in cut.removesuffix(" …").strip(" "):
        kept = cut.removesuffix(" …")
        assert reason.encode("utf-8", "replace").decode()[len(kept)] == " "


async def test_a_session_that_does_not_listen_is_cancelled_when_its_client_is_gone():
    cancelled = []

    async def deaf(service, accept, inbox) -> None:
        service.has(await accept())
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(True)
            raise

    limits = Limits(ping_seconds=0.3, pong_seconds=0.3)
    async with serving_small(session=deaf, limits=limits) as served, open_raw(served.url, PATH) as client:
        await served.service.sink()
        await client.send(client_frame(Opcode.TEXT, b"x") * 30)  # more than hypercorn's queue takes
        await client.close()
        await served.service.empty()
        assert cancelled == [True]


async def test_a_bug_in_a_session_ends_its_connection_alone(caplog: pytest.LogCaptureFixture):
    async def broken(service, accept, inbox) -> None:
        await accept()
        if await inbox.receive() == "break":
            raise RuntimeError("a bug in a session")
        service.said.append("well")
        while not isinstance(await inbox.receive(), Disconnect):
            service.said.append("well")

    async with serving_small(session=broken) as served, open_raw(served.url, PATH) as bystander:
        await bystander.send_frame(Opcode.TEXT, b"hi")
        async with open_raw(served.url, PATH) as client:
            await client.send_frame(Opcode.TEXT, b"break")
            assert close_code((await client.read_to_end())[-1])[0] == 1011
        await bystander.ping()
        assert served.service.said == ["well"]
    assert "a bug in a session" in caplog.text


@pytest.mark.deadline(120)
async def test_after_many_clients_nothing_is_left_of_them():
    dice = random.Random(9)

    def left() -> tuple[list[str], int, int]:
        return tasks(), threading.active_count(), len(os.listdir("/proc/self/fd"))

    async with serving_small() as served:

        async def come_and_go() -> None:
            for _ in range(50):
                way = dice.randrange(6)
                async with open_raw(served.url, PATH) as client:
                    if way == 0:
                        with suppress(trio.BrokenResourceError):  # another one has aborted it, here and below
                            await client.send_frame(Opcode.CLOSE, b"\x03\xe8")
                        await client.read_to_end()
                    elif way == 1:
                        client.reset()
                    elif way == 2:
                        with suppress(trio.BrokenResourceError):
                            await client.half_close()
                        await client.wait_ended()
                    elif way == 3:
                        (await served.service.sink()).abort()
                    elif way == 4:
                        with suppress(trio.BrokenResourceError):
                            await client.send_frame(Opcode.TEXT, b"\xff")
                        await client.wait_ended()
                    else:
                        await (await served.service.sink()).close(1000, "")

        async with open_raw(served.url, PATH):
            await served.service.until(lambda: served.service.names == 1)
        await served.service.empty()
        await trio.sleep(1)  # threads and sockets of the first end by themselves, when they like
        before = left()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(come_and_go)
        await served.service.empty()
        with trio.move_on_after(10):
            while left() != before:  # noqa: ASYNC110 - sockets linger for half a second
                await trio.sleep(0.1)
        assert left() == before
        assert served.service.telemetry.failed == []


async def test_on_a_server_that_is_not_ours_a_websocket_is_served_through_it():
    async with serving_small(ours=False) as served, open_raw(served.url, PATH) as client:
        sink = await served.service.sink()
        assert isinstance(sink, AsgiSink)
        assert not sink.offer(text(b"one") + text(b"three"))
        assert sink.owed == 12
        assert await sink.flush()
        assert sink.owed == 0
        assert [await client.next_text() for _ in range(2)] == ["one", "three"]
        await client.send_frame(Opcode.TEXT, b"hello")
        await client.ping()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.close, 1012, "bye")
            frame = await client.next_frame()
        assert close_code(frame) == (1012, "bye")
        assert not sink.offer(text(b"late"))
        assert not await sink.flush()
        await client.close()
        await served.service.empty()
        assert served.service.said == ["hello"]
