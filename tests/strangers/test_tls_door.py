"""Whatever comes to a TLS port before, in and after the handshake ends at most its own connection, and disturbs no other client."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from kafka_chat.delivery.records.frames import text_header
from kafka_chat.web.server.time_limits import REQUEST_SECONDS
from tests.edges.small_app import PATH, Served, serving_small
from tests.support.calls import until
from tests.support.deadlines import HANG_SECONDS
from tests.support.raw_client import RawClient, handshake_request, open_raw

FOLDER = Path(__file__).parents[1] / "support" / "localhost"
CERTIFICATE = str(FOLDER / "certificate.pem"), str(FOLDER / "key.pem")
CONTEXT = ssl.create_default_context(cafile=CERTIFICATE[0])
REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


class TlsBytes:
    """A client's side of TLS, whose bytes a test sends as it likes."""

    def __init__(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = CONTEXT.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def hello(self) -> bytes:
        """Return the first flight."""
        with suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._outgoing.read()

    async def shake_hands(self, client: RawClient) -> None:
        """Do the whole handshake."""
        await client.send(self.hello())
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await client.send(self._outgoing.read())
                self._incoming.write(await self._more(client))
        await client.send(self._outgoing.read())

    def encrypted(self, data: bytes) -> bytes:
        """Return records with these bytes in them."""
        self._tls.write(data)
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """Return a close_notify."""
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._outgoing.read()

    async def answer(self, client: RawClient) -> bytes:
        """Return what the server says until its end."""
        self._incoming.write(await client.wait_ended())
        said = b""
        with suppress(ssl.SSLError):
            while more := self._tls.read(65536):
                said += more
        return said

    @staticmethod
    async def _more(client: RawClient) -> bytes:
        with trio.fail_after(HANG_SECONDS):
            return bytes(await client._stream.receive_some(65536))


@asynccontextmanager
async def serving_tls() -> AsyncIterator[Served]:
    """Serve on a TLS port; a WebSocket that was there before gets its message, and its pong, afterwards."""
    async with serving_small(certificate=CERTIFICATE) as served:
        tcp = await trio.open_tcp_stream("127.0.0.1", served.port)
        stream = trio.SSLStream(tcp, CONTEXT, server_hostname="localhost", https_compatible=True)
        canary = RawClient(stream)  # type: ignore[arg-type]
        assert (await canary.handshake(PATH)).status == 101
        sink = await served.service.sink()
        yield served
        assert not sink.offer(text_header(2) + b"hi")  # owed until it is encrypted
        assert await sink.flush()
        assert await canary.next_text() == "hi"
        await canary.ping()
        await trio.aclose_forcefully(tcp)
        assert served.service.telemetry.failed == []


async def until_gone(served: Served) -> None:
    """Wait until no connection is left but the canary's."""
    await until(lambda: served.app.policy.connections.count <= 1)


@pytest.mark.parametrize(
    "first",
    [
        REQUEST,
        b"\x16\x03\x01\xff\xff" + b"\x01" * 100,
        b"\x16\x03\x01\x00\x00",
        b"\x80\x2e\x01\x03\x01",
        b"\x00",
        b"\x15\x03\x01\x00\x02\x02\x28",
    ],
    ids=["plain HTTP", "a hello that never ends", "an empty record", "SSL 2", "a byte", "an alert"],
)
async def test_what_is_no_handshake_ends_its_connection(first: bytes):
    async with serving_tls() as served:
        async with open_raw(served.url) as client:
            await client.send(first)
            await client.half_close()
            await client.wait_ended()
        await until_gone(served)


async def test_half_handshakes_that_are_held_keep_nobody_out_and_end_in_time():
    assert REQUEST_SECONDS == 10
    async with serving_tls() as served, AsyncExitStack() as stack:
        for number in range(100):
            client = await stack.enter_async_context(open_raw(served.url))
            hello = TlsBytes().hello()
            await client.send(hello[: random.Random(number).randrange(len(hello) + 1)])
        tls = TlsBytes()
        async with open_raw(served.url) as late:
            await tls.shake_hands(late)
            await late.send(tls.encrypted(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))
            assert b"Consumer is running" in await tls.answer(late)
        held = [connection for turn in served.app.policy.keepalive._turns for connection in turn]
        now = trio.current_time()
        for connection in held:
            connection.check_alive(now + REQUEST_SECONDS + 1)
        await until_gone(served)


@pytest.mark.parametrize("notified", [True, False])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_client_may_leave_with_and_without_saying_so(*, notified: bool, reset: bool):
    async with serving_tls() as served:
        for said in (b"", REQUEST[:20], REQUEST, handshake_request(PATH)):
            tls = TlsBytes()
            async with open_raw(served.url) as client:
                await tls.shake_hands(client)
                if said:
                    await client.send(tls.encrypted(said))
                if notified:
                    await client.send(tls.farewell())
                if reset:
                    client.reset()
                else:
                    await client.half_close()
                    await client.wait_ended()
        await until_gone(served)


@pytest.mark.parametrize("seed", range(6))
async def test_bytes_that_are_cut_swapped_or_made_up_end_one_connection_each(seed: int):
    dice = random.Random(seed)

    def broken(data: bytes) -> bytes:
        way = dice.randrange(4)
        if way == 0:
            return data[: dice.randrange(len(data))]
        if way == 1:
            at = dice.randrange(len(data))
            return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
        return dice.randbytes(dice.randrange(1, 300)) if way == 2 else data + dice.randbytes(20)

    async with serving_tls() as served:

        async def stranger() -> None:
            tls = TlsBytes()
            async with open_raw(served.url) as client:
                with suppress(trio.BrokenResourceError, ssl.SSLError):
                    if dice.random() < 0.5:
                        await client.send(broken(tls.hello()))
                    else:
                        await tls.shake_hands(client)
                        await client.send(broken(tls.encrypted(dice.choice([REQUEST, handshake_request(PATH)]))))
                        await client.send(broken(tls.encrypted(b"x" * 100)))
                    if dice.random() < 0.5:
                        await client.half_close()
                        await client.wait_ended()

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(stranger)
        await until_gone(served)


async def test_a_websocket_frame_cut_by_records_is_one_message_and_a_broken_record_behind_it_is_the_end():
    async with serving_tls() as served:
        tls = TlsBytes()
        async with open_raw(served.url) as client:
            await tls.shake_hands(client)
            await client.send(tls.encrypted(handshake_request(PATH)))
            await served.service.sink()
            frame = bytes([0x81, 0x85]) + bytes(4) + b"hello"
            for byte in frame:
                await client.send(tls.encrypted(bytes([byte])))
            await until(lambda: served.service.said == ["hello"])
            await client.send(b"\x17\x03\x03\x00\x20" + bytes(32))
            await client.wait_ended()
        await until_gone(served)
