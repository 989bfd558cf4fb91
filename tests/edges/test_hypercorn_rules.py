"""How the server treats a client that violates the protocol, sends too much, or sends nothing."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from kafka_chat.delivery.records.frames import text_header
from kafka_chat.settings.model import Limits
from tests.edges.small_app import PATH, serving_small
from tests.support.deadlines import HANG_SECONDS
from tests.support.raw_client import Opcode, RawClient, client_frame, close_code, handshake_request, open_raw

LIMIT = 2000


async def send_until_cut(client: RawClient, piece: bytes, *, pause_seconds: float = 0) -> None:
    """Send the same bytes over and over, up to the end that the server puts to it."""
    with trio.fail_after(HANG_SECONDS), suppress(trio.BrokenResourceError):
        while True:
            await client.send(piece)
            await trio.sleep(pause_seconds)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (client_frame(Opcode.TEXT, b"x" * (LIMIT + 1)), 1009),
        (client_frame(Opcode.TEXT, "ü".encode() * (LIMIT // 2 + 1)), 1009),
        (client_frame(Opcode.BINARY, b"x" * (LIMIT + 1)), 1009),
        (client_frame(Opcode.TEXT, b"x" * LIMIT, final=False) + client_frame(Opcode.CONTINUATION, b"x"), 1009),
        (client_frame(Opcode.TEXT, b"\xff\xfe"), 1007),
        (client_frame(Opcode.TEXT, b"x", masked=False), 1002),
        (client_frame(Opcode.TEXT, b"x", reserved=4), 1002),
        (client_frame(Opcode.CONTINUATION, b"x"), 1002),
        (client_frame(5, b"x"), 1002),
        (client_frame(Opcode.PING, b"x" * 126), 1002),
        (client_frame(Opcode.PING, b"x", final=False), 1002),
        (client_frame(Opcode.CLOSE, b"\x03"), 1002),
        (client_frame(Opcode.PONG) * 1001, 1008),
        (client_frame(Opcode.TEXT, b"x", final=False) + client_frame(Opcode.CONTINUATION, final=False) * 1000, 1008),
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.promise("p-talk", "p-client-message-bytes")
async def test_who_breaks_the_rules_is_told_by_a_close_code(sent: bytes, code: int):
    async with serving_small(limits=Limits(client_message_bytes=LIMIT)) as served, open_raw(served.url, PATH) as client:
        await served.service.sink()
        await client.send(sent)
        frames = await client.read_to_end()
        assert close_code(frames[-1])[0] == code
        await served.service.empty()
        assert served.service.disconnects == [code]
        assert served.service.said == []
        assert len(served.service.telemetry.aborted) == 1


async def test_who_goes_on_sending_after_1009_is_cut_soon_and_fills_no_memory():
    async with serving_small(limits=Limits(client_message_bytes=LIMIT)) as served, open_raw(served.url, PATH) as client:
        await served.service.sink()
        piece = client_frame(Opcode.CONTINUATION, b"x" * 60_000, final=False)
        await client.send(client_frame(Opcode.TEXT, b"x", final=False))
        begun = trio.current_time()
        await send_until_cut(client, piece)
        assert trio.current_time() - begun < 5
        assert served.service.telemetry.aborted == ["too_large"]
        assert served.service.said == []


@pytest.mark.promise("p-client-message-bytes")
async def test_a_message_of_exactly_the_limit_is_taken_also_in_pieces():
    async with serving_small(limits=Limits(client_message_bytes=LIMIT)) as served, open_raw(served.url, PATH) as client:
        await served.service.sink()
        await client.send_frame(Opcode.TEXT, b"x" * LIMIT)
        await client.send_frame(Opcode.BINARY, b"y" * (LIMIT - 1), final=False)
        await client.send_frame(Opcode.CONTINUATION, b"y")
        await client.ping()
        assert served.service.said == ["x" * LIMIT, b"y" * LIMIT]


async def test_an_empty_message_is_one():
    async with serving_small() as served, open_raw(served.url, PATH) as client:
        await served.service.sink()
        await client.send_frame(Opcode.BINARY)
        await client.send_frame(Opcode.TEXT)
        await client.ping()
        assert served.service.said == [b"", ""]


@pytest.mark.parametrize(("payload", "code"), [(b"\x03\xe9bye", 1001), (b"\x0f\xa1", 4001), (b"", 1005)])
async def test_a_clients_close_is_answered_and_its_code_kept(payload: bytes, code: int):
    async with serving_small() as served, open_raw(served.url, PATH) as client:
        await served.service.sink()
        await client.send_frame(Opcode.CLOSE, payload)
        frames = await client.read_to_end()
        assert [close_code(frame)[0] for frame in frames] == [code]
        await client.close()
        await served.service.empty()
        assert served.service.disconnects == [code]


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_a_client_that_goes_without_a_word_is_missed_at_once(how: str):
    async with serving_small() as served, open_raw(served.url, PATH) as client:
        await served.service.sink()
        if how == "fin":
            await client.close()
        else:
            client.reset()
        await served.service.empty()
        assert served.service.disconnects == [1006]


@pytest.mark.promise("p-not-deflated")
async def test_compression_is_never_agreed_on():
    async with serving_small() as served, open_raw(served.url) as client:
        response = await client.handshake(PATH, headers={"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"})
        assert "sec-websocket-extensions" not in response.headers
        (await served.service.sink()).offer(text_header(100) + b"x" * 100)
        assert await client.next_text() == "x" * 100


@pytest.mark.promise("p-pongs")
async def test_a_client_that_answers_no_ping_is_cut():
    async with serving_small(limits=Limits(ping_seconds=0.2, pong_seconds=0.2)) as served, open_raw(served.url, PATH) as client:
        begun = trio.current_time()
        await served.service.sink()
        frames = await client.read_to_end()
        assert 0.3 < trio.current_time() - begun < 5
        assert {frame.opcode for frame in frames} == {Opcode.PING}
        assert served.service.telemetry.aborted == ["pong_seconds"]


@pytest.mark.promise("p-pongs")
async def test_a_client_that_answers_pings_or_says_anything_else_is_kept():
    async with serving_small(limits=Limits(ping_seconds=0.2, pong_seconds=1.3)) as served, open_raw(served.url, PATH) as client:
        sink = await served.service.sink()
        with trio.move_on_after(2):
            while True:
                frame = await client.next_frame()
                if frame.opcode is Opcode.PING:
                    await client.send_frame(Opcode.PONG, frame.payload)
        with trio.move_on_after(2):
            while True:
                await client.send_frame(Opcode.TEXT, b"x")
                await trio.sleep(0.1)
        assert sink.offer(text_header(1) + b"x")
        assert served.service.telemetry.aborted == []


async def test_pings_of_many_clients_are_spread():
    times = []
    async with serving_small(limits=Limits(ping_seconds=1.0, pong_seconds=1.0)) as served:

        async def first_ping() -> None:
            async with open_raw(served.url, PATH) as client:
                assert (await client.next_frame()).opcode is Opcode.PING
                times.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(first_ping)
        assert max(times) - min(times) > 0.2


@pytest.mark.promise("p-body-seconds")
async def test_a_client_that_dribbles_its_request_is_cut():
    async with serving_small(limits=Limits(ping_seconds=0.4, pong_seconds=0.4)) as served, open_raw(served.url) as client:
        await client.send(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
        assert (await client.read_response()).body == b'{"size":2}\n'
        served.app.policy.request_seconds = 0.3
        await client.send(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        await send_until_cut(client, b"x", pause_seconds=0.05)
        assert served.service.telemetry.aborted == ["request_seconds"]


@pytest.mark.promise("p-refused")
async def test_a_refused_handshake_has_a_status_and_a_body():
    async with serving_small() as served, open_raw(served.url) as client:
        await client.send(handshake_request("/refused"))
        response = await client.read_response()
        assert response.status == 503
        assert response.headers["retry-after"] == "5"
        assert b"no place now" in response.body or response.headers.get("transfer-encoding") == "chunked"
        await client.wait_ended()
        assert served.service.telemetry.failed == []


async def test_a_bug_behind_an_admission_gives_the_place_back():
    async with serving_small() as served, open_raw(served.url) as client:
        await client.send(handshake_request("/broken"))
        assert (await client.read_response()).status == 500
        await client.wait_ended()
        assert served.service.names == 0


async def test_no_ping_comes_behind_a_close_frame():
    async with serving_small(limits=Limits(ping_seconds=0.05, pong_seconds=5)) as served:
        for _ in range(10):
            async with open_raw(served.url, PATH) as client:
                sink = await served.service.sink()
                await trio.sleep(0.02)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sink.close, 1012, "")
                    frames = await client.read_to_end()  # which checks what is behind the close frame
                assert frames[-1].opcode is Opcode.CLOSE
