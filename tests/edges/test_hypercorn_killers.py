"""Whatever a client sends ends only its own connection."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio

from kafka_chat.delivery.records.frames import text_header
from tests.edges.small_app import PATH, Served, serving_small
from tests.support.raw_client import Opcode, client_frame, handshake_request, open_raw

KILLERS = {
    "a protocol with a byte beyond ASCII": handshake_request(PATH, headers={"Sec-WebSocket-Protocol": "caf\xe9"}),
    "an extension with a byte beyond ASCII": handshake_request(PATH, headers={"Sec-WebSocket-Extensions": "caf\xe9"}),
    "a frame with the handshake": handshake_request(PATH) + client_frame(Opcode.TEXT, b"early"),
    "a handshake without a version": handshake_request(PATH, headers={"Sec-WebSocket-Version": ""}),
    "a handshake without a key": handshake_request(PATH, headers={"Sec-WebSocket-Key": ""}),
    "a handshake by HTTP/1.0": handshake_request(PATH).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a handshake by POST": handshake_request(PATH).replace(b"GET ", b"POST "),
    "a handshake with a body": handshake_request(PATH, headers={"Content-Length": "5"}) + b"hello",
    "two handshakes at once": handshake_request(PATH) * 2,
    "a request line of 100 kB": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\n: x\r\n\r\n",
    "a content length that is no number": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    "a broken chunk": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an upgrade to h2c with bad settings": (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \xff\xff!\r\n\r\n"
    ),
    "an HTTP/2 preface with noise behind it": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(range(256)) * 4,
    "TLS on the plain port": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "nothing": b"",
}


async def assert_canary_is_well(served: Served, stranger: Callable[[], object]) -> None:
    """Let a stranger do something, and see that a client that was there before notices nothing."""
    async with open_raw(served.url, PATH) as canary:
        sink = await served.service.sink()
        await stranger()
        assert sink.offer(text_header(2) + b"hi")
        assert await canary.next_text() == "hi"
        await canary.ping()
        async with open_raw(served.url) as visitor:
            await visitor.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await visitor.read_response()).status == 200


@pytest.mark.parametrize("killer", KILLERS)
async def test_one_request_ends_its_own_connection_at_most(killer: str):
    async with serving_small() as served:

        async def stranger() -> None:
            async with open_raw(served.url) as client:
                await client.send(KILLERS[killer])
                with trio.move_on_after(0.3):
                    await client.wait_ended()

        await assert_canary_is_well(served, stranger)
        await served.service.empty()


NO_HANDSHAKES = (
    "a protocol with a byte beyond ASCII",
    "an extension with a byte beyond ASCII",
    "a frame with the handshake",
    "a handshake without a version",
    "a handshake without a key",
    "a handshake with a body",
    "two handshakes at once",
)


@pytest.mark.parametrize("killer", NO_HANDSHAKES)
@pytest.mark.promise("p-refused-400")
async def test_a_handshake_that_is_none_is_answered_400(killer: str):
    async with serving_small() as served, open_raw(served.url) as client:
        await client.send(KILLERS[killer])
        response = await client.read_response()
        await client.wait_ended()
        assert response.status == 400
        assert served.service.telemetry.failed == []


async def test_random_bytes_end_their_own_connection_at_most():
    dice = random.Random(4)
    async with serving_small() as served:

        async def stranger() -> None:
            for _ in range(100):
                async with open_raw(served.url) as client:
                    await client.send(dice.randbytes(dice.randrange(1, 5000)))
                    if dice.random() < 0.3:
                        client.reset()

        await assert_canary_is_well(served, stranger)


async def test_random_frames_end_their_own_connection_at_most():
    dice = random.Random(5)
    async with serving_small() as served:

        async def stranger() -> None:
            for _ in range(100):
                async with open_raw(served.url, PATH) as client:
                    await client.send(dice.randbytes(dice.randrange(1, 500)))
                    if dice.random() < 0.5:
                        client.reset()
            await served.service.until(lambda: served.service.names == 1)
            served.service.sinks[1:] = []

        await assert_canary_is_well(served, stranger)


async def test_a_mutated_handshake_ends_its_own_connection_at_most():
    dice = random.Random(6)
    request = handshake_request(PATH, headers={"Sec-WebSocket-Protocol": "a, b", "Sec-WebSocket-Extensions": "permessage-deflate"})
    async with serving_small() as served:

        async def stranger() -> None:
            for _ in range(200):
                mutated = bytearray(request)
                for _ in range(dice.randrange(1, 4)):
                    mutated[dice.randrange(len(mutated))] = dice.randrange(256)
                async with open_raw(served.url) as client:
                    await client.send(bytes(mutated))
                    with trio.move_on_after(0.01):
                        await client.wait_ended()

        await assert_canary_is_well(served, stranger)


async def test_a_connection_that_is_reset_before_it_is_served_is_nobodys_trouble():
    async with serving_small() as served:

        async def stranger() -> None:
            for _ in range(50):
                async with open_raw(served.url) as client:
                    client.reset()

        await assert_canary_is_well(served, stranger)
