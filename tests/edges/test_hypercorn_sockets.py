"""What a client sees of its connection, whatever it and the server do to each other."""

from __future__ import annotations

import os
import random
import ssl
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.delivery.records.frames import text_header
from kafka_chat.settings.model import Limits
from kafka_chat.web.streams.websocket_sink import ConnectionSink
from tests.edges.small_app import PATH, serving_small
from tests.support.calls import until
from tests.support.deadlines import HANG_SECONDS
from tests.support.raw_client import Frame, Opcode, RawClient, close_code, handshake_request, open_raw


def text(payload: bytes) -> bytes:
    return text_header(len(payload)) + payload


@pytest.fixture
def certificate() -> tuple[str, str]:
    """A certificate of our own for localhost, and its key."""
    folder = Path(__file__).parents[1] / "support" / "localhost"
    return str(folder / "certificate.pem"), str(folder / "key.pem")


async def test_offered_frames_arrive_in_order():
    async with serving_small() as served, open_raw(served.url, PATH) as client:
        sink = await served.service.sink()
        assert sink.offer(text(b"one") + text(b"two"))
        assert sink.offer(text(b"three"))
        assert [await client.next_text() for _ in range(3)] == ["one", "two", "three"]
        assert sink.owed == 0


async def test_a_slow_client_that_pings_gets_an_intact_stream():
    frame = text(b"x" * 50_000)
    async with serving_small() as served, open_raw(served.url, PATH, receive_buffer=4096) as client:
        sink = await served.service.sink()

        async def write() -> None:
            for _ in range(100):
                if not sink.offer(frame):
                    assert await sink.flush()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            for _ in range(50):
                await client.send_frame(Opcode.PING, b"12345678")
            seen = {Opcode.TEXT: 0, Opcode.PONG: 0}
            while seen[Opcode.TEXT] < 100 or seen[Opcode.PONG] < 50:
                seen[(await client.next_frame()).opcode] += 1
        assert seen == {Opcode.TEXT: 100, Opcode.PONG: 50}


async def test_close_comes_after_all_that_is_owed():
    async with serving_small() as served, open_raw(served.url, PATH, receive_buffer=4096) as client:
        sink = await served.service.sink()
        while sink.offer(text(b"y" * 100_000)):
            pass
        owed = sink.owed
        assert owed
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.close, 1012, "ü" * 100)
            await wait_all_tasks_blocked()
            assert not sink.offer(text(b"late"))
            frames = await client.read_to_end()
        assert close_code(frames[-1]) == (1012, "ü" * 59 + " …")
        assert {frame.payload for frame in frames[:-1]} == {b"y" * 100_000}


async def test_an_aborted_connection_is_over_at_once_with_writers_stuck_in_it():
    async with serving_small() as served, open_raw(served.url, PATH, receive_buffer=4096):
        sink = await served.service.sink()
        while sink.offer(text(b"y" * 100_000)):
            pass
        async with trio.open_nursery() as nursery:
            results = []

            async def flush() -> None:
                results.append(await sink.flush())

            nursery.start_soon(flush)
            nursery.start_soon(flush)
            await wait_all_tasks_blocked()
            sink.abort()
            sink.abort()
            await served.service.empty()
        assert results == [False, False]
        assert sink.owed == 0
        assert not sink.offer(text(b"late"))


@pytest.mark.promise("p-write-seconds")
async def test_a_client_that_never_reads_is_aborted_after_the_write_limit():
    async with serving_small(limits=Limits(write_seconds=0.3)) as served, open_raw(served.url, PATH, receive_buffer=4096):
        sink = await served.service.sink()
        while sink.offer(text(b"y" * 100_000)):
            pass
        begun = trio.current_time()
        with trio.fail_after(HANG_SECONDS):
            assert not await sink.flush()
        assert trio.current_time() - begun > 0.2
        assert served.service.telemetry.aborted == ["write_seconds"]


@pytest.mark.promise("p-write-seconds")
async def test_a_client_that_reads_slowly_is_kept_beyond_the_write_limit():
    async with serving_small(limits=Limits(write_seconds=1.0)) as served, open_raw(served.url, PATH, receive_buffer=4096) as client:
        sink = await served.service.sink()
        while sink.offer(text(b"y" * 100_000)):
            pass
        flushed = trio.Event()

        async def flush() -> None:
            assert await sink.flush()
            flushed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            begun = trio.current_time()
            while not flushed.is_set():
                await client._read_more()
                await trio.sleep(0.2)
        assert trio.current_time() - begun > 1.2
        assert served.service.telemetry.aborted == []


async def test_a_flush_that_is_cancelled_at_any_moment_tears_no_frame():
    dice = random.Random(7)
    async with serving_small() as served, open_raw(served.url, PATH, receive_buffer=4096) as client:
        sink = await served.service.sink()

        async def write() -> None:
            for number in range(300):
                sink.offer(text(b"%06d" % number + b"x" * dice.randrange(100_000)))
                with trio.move_on_after(dice.random() / 300):
                    await sink.flush()
            await sink.flush()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            for number in range(300):
                if number % 10 == 0:
                    await client.ping()
                texts = [frame for frame in client.frames_read if frame.opcode is Opcode.TEXT]
                while len(texts) <= number:
                    texts.append(await client.next_frame())
                assert texts[number].payload[:6] == b"%06d" % number


async def test_bytes_never_reach_a_client_that_took_over_the_descriptor():
    async with serving_small() as served:
        async with open_raw(served.url, PATH) as gone:
            stale = await served.service.sink()
            descriptors = set(os.listdir("/proc/self/fd"))
            gone.reset()
            await served.service.empty()
        async with open_raw(served.url, PATH) as client:
            fresh = await served.service.sink()
            assert set(os.listdir("/proc/self/fd")) == descriptors
            assert not stale.offer(text(b"for the one that is gone"))
            assert not await stale.flush()
            assert fresh.offer(text(b"for you"))
            assert await client.next_text() == "for you"


async def test_what_a_session_offers_in_the_step_of_its_accept_comes_behind_the_101():
    async def eager(service, accept, inbox) -> None:
        sink = await accept()
        sink.offer(text(b"first"))
        service.has(sink)
        await inbox.receive()

    async with serving_small(session=eager) as served:
        for _ in range(20):
            async with open_raw(served.url, PATH) as client:
                assert await client.next_text() == "first"


async def test_a_client_that_leaves_before_the_accept_leaves_nothing_behind():
    begun, left = trio.Event(), trio.Event()

    async def slow(service, accept, inbox) -> None:
        begun.set()
        await left.wait()
        sink = await accept()
        service.has(sink)
        service.said.append(str(sink.offer(text(b"x"))))
        service.said.append(str(await sink.flush()))
        await sink.close(1012, "")

    async with serving_small(session=slow) as served:
        async with open_raw(served.url) as client:
            await client.send(handshake_request(PATH))
            await begun.wait()
            client.reset()
            await wait_all_tasks_blocked()
            left.set()
        await served.service.empty()
        assert served.service.said in (["False", "False"], ["False"])
        assert served.service.telemetry.failed == []


async def test_a_session_that_returns_without_a_close_ends_the_connection():
    async def short(service, accept, inbox) -> None:
        await accept()

    async with serving_small(session=short) as served, open_raw(served.url, PATH) as client:
        frames = await client.read_to_end()
        assert [frame.opcode for frame in frames] == [Opcode.CLOSE]


async def test_a_session_may_close_itself_and_return():
    async def closing(service, accept, inbox) -> None:
        sink = await accept()
        await sink.close(1008, "too many words")
        await sink.close(1011, "once is enough")
        sink.abort()

    async with serving_small(session=closing) as served, open_raw(served.url, PATH) as client:
        begun = trio.current_time()
        frames = await client.read_to_end()
        assert [close_code(frame) for frame in frames] == [(1008, "too many words")]
        assert trio.current_time() - begun < 3
        await client.close()
        await served.service.empty()
        assert served.service.telemetry.failed == []


async def test_a_close_frame_reaches_a_client_that_is_still_sending():
    async with serving_small() as served, open_raw(served.url, PATH) as client:
        sink = await served.service.sink()
        async with trio.open_nursery() as nursery:
            said = 0

            async def talk() -> None:
                nonlocal said
                while True:
                    await client.send_frame(Opcode.BINARY, b"x" * 10_000)
                    said += 1

            nursery.start_soon(talk)
            await until(lambda: said > 10)
            nursery.start_soon(sink.close, 1008, "enough")
            frame = await client.next_frame()
            nursery.cancel_scope.cancel()
        assert close_code(frame) == (1008, "enough")


async def test_a_large_response_reaches_a_slow_client_whole():
    async with serving_small(limits=Limits(write_seconds=2.0)) as served, open_raw(served.url, receive_buffer=4096) as client:
        await client.send(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        response = await client.read_response()
        assert len(response.body) == 5_000_000
        await client.wait_ended()


async def test_tls_takes_offers_and_pings_and_closes_like_plain(certificate: tuple[str, str]):
    context = ssl.create_default_context(cafile=certificate[0])
    context.check_hostname = False
    async with serving_small(certificate=certificate, limits=Limits(ping_seconds=0.3)) as served:
        tcp = await trio.open_tcp_stream("127.0.0.1", served.port)
        client = RawClient(trio.SSLStream(tcp, context, https_compatible=True))
        assert (await client.handshake(PATH)).status == 101
        sink = await served.service.sink()
        assert type(sink) is ConnectionSink
        dice = random.Random(8)
        sent = 0
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                nonlocal sent
                while sent < 300:
                    assert not sink.offer(text(b"%06d" % sent + b"x" * dice.randrange(100_000)))
                    sent += 1
                    with trio.move_on_after(dice.random() / 300):
                        await sink.flush()
                assert await sink.flush()
                assert sink.owed == 0

            nursery.start_soon(write)
            for number in range(300):
                if number % 20 == 0:
                    await client.send_frame(Opcode.PING, b"mine")
                text_ = await client.next_text()
                assert text_.startswith(f"{number:06d}")
        while (await client.next_frame()) != Frame(Opcode.PING, b""):
            pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.close, 1012, "bye")
            frames = await client.read_to_end()
        assert close_code(frames[-1]) == (1012, "bye")
        await trio.aclose_forcefully(tcp)
        assert served.service.telemetry.failed == []


async def test_tls_with_a_client_that_never_reads_is_aborted_after_the_write_limit(certificate: tuple[str, str]):
    context = ssl.create_default_context(cafile=certificate[0])
    context.check_hostname = False
    async with serving_small(certificate=certificate, limits=Limits(write_seconds=0.3)) as served:
        tcp = await trio.open_tcp_stream("127.0.0.1", served.port)
        client = RawClient(trio.SSLStream(tcp, context, https_compatible=True))
        assert (await client.handshake(PATH)).status == 101
        sink = await served.service.sink()
        sink.offer(text(b"x" * 20_000_000))
        with trio.fail_after(HANG_SECONDS):
            assert not await sink.flush()
        await served.service.empty()
        assert served.service.telemetry.aborted == ["write_seconds"]
        await trio.aclose_forcefully(tcp)


async def test_who_does_not_finish_the_tls_handshake_is_cut(certificate: tuple[str, str]):
    async with serving_small(certificate=certificate) as served:
        async with open_raw(served.url) as warm:
            await warm.send(b"GET / HTTP/1.1\r\n\r\n")
            await warm.wait_ended()
        assert served.service.telemetry.failed == []
