"""Whatever a thousand clients do in the same instant, each iteration of the loop serves a few of them, and others hardly notice."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.delivery.records.frames import text_header
from kafka_chat.settings.model import Limits
from kafka_chat.web.server.ready_sockets import MOST_IN_A_ROUND
from tests.edges.small_app import PATH, Served, serving_small
from tests.support.calls import until
from tests.support.deadlines import HANG_SECONDS
from tests.support.loop_steps import LoopRounds, loop_rounds
from tests.support.raw_client import handshake_request, open_raw

MANY = 600
# A connection that has its turn wakes one or two tasks of its own, for some rounds; all those of a round together are far from `MANY`.
MOST_STEPS = 8 * MOST_IN_A_ROUND
REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
CERTIFICATES = Path(__file__).parents[1] / "support" / "localhost"


async def connect(port: int, stack: ExitStack) -> list[socket.socket]:
    """Open connections, a few at a time, without a task for each."""
    clients = []
    for number in range(MANY):
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        client.setblocking(False)  # noqa: FBT003 - the standard library's
        clients.append(client)
        if number % 50 == 0:
            await trio.sleep(0.01)
    return clients


async def answered(clients: list[socket.socket], *, first: bytes, last: bytes = b"") -> None:
    """Wait until each has an answer that begins and ends so, and read it away."""
    with trio.fail_after(HANG_SECONDS):
        for client in clients:
            answer = b""
            while not (answer and answer.endswith(last)):
                await trio.lowlevel.wait_readable(client)
                answer += client.recv(65536)
            assert answer.startswith(first)


@asynccontextmanager
async def canary(served: Served) -> AsyncIterator[LoopRounds]:
    """A WebSocket that was there before gets a message and a pong, and a newcomer its answer, while the block's work is still going on."""
    served.service.sinks.clear()
    async with open_raw(served.url, PATH) as client:
        sink = await served.service.sink()
        with loop_rounds() as rounds:
            yield rounds
            assert sink.offer(text_header(2) + b"hi")
            assert await client.next_text() == "hi"
            await client.ping()
            async with open_raw(served.url) as late:
                await late.send(REQUEST)
                assert (await late.read_response()).status == 200
        assert served.service.telemetry.failed == []


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
@pytest.mark.parametrize("as_websocket", [True, False])
@pytest.mark.promise("p-many-at-once")
async def test_the_end_of_many_is_tidied_away_by_and_by(leave: Callable[[socket.socket], None], *, as_websocket: bool):
    async with serving_small() as served:
        with ExitStack() as stack:
            clients = await connect(served.port, stack)
            if as_websocket:
                for client in clients:
                    client.send(handshake_request(PATH))
                await answered(clients, first=b"HTTP/1.1 101", last=b"\r\n\r\n")
                await served.service.until(lambda: len(served.service.sinks) == MANY)
            async with canary(served) as rounds:
                for client in clients:
                    leave(client)
        await served.service.empty()
        await until(lambda: not served.app.policy.connections.count)
    assert rounds.most_steps <= MOST_STEPS


@pytest.mark.promise("p-many-at-once")
async def test_requests_of_many_are_answered_a_few_at_a_time_and_a_newcomer_in_between():
    async with serving_small() as served:
        with ExitStack() as stack:
            clients = await connect(served.port, stack)
            for client in clients:
                client.send(REQUEST)
            await answered(clients, first=b"HTTP/1.1 200", last=b'running"}\n')
            async with canary(served) as rounds:
                for client in clients:
                    client.send(REQUEST)
            assert rounds.most_steps <= MOST_STEPS
            await answered(clients, first=b"HTTP/1.1 200", last=b'running"}\n')


async def test_many_that_have_stopped_reading_in_the_same_instant_are_cut_a_few_at_a_time():
    async with serving_small(limits=Limits(write_seconds=2.0)) as served:
        with ExitStack() as stack:
            clients = await connect(served.port, stack)
            for client in clients:
                client.send(handshake_request(PATH))
            await answered(clients, first=b"HTTP/1.1 101", last=b"\r\n\r\n")
            await served.service.until(lambda: len(served.service.sinks) == MANY)
            sinks = list(served.service.sinks)
            message = text_header(8_000_000) + b"x" * 8_000_000  # more than the kernel takes for a client
            async with canary(served) as rounds, trio.open_nursery() as nursery:
                for sink in sinks:
                    assert not sink.offer(message)
                    nursery.start_soon(sink.flush)
                await trio.testing.wait_all_tasks_blocked()
                rounds.most_steps = 0
            assert served.service.telemetry.aborted == ["write_seconds"] * MANY
            # As many are looked at in a round as fit in its time; each that is cut wakes four tasks, the test's own one included.
            assert rounds.most_steps <= 2 * MOST_STEPS


async def test_tls_handshakes_of_many_are_made_a_few_at_a_time():
    certificate = str(CERTIFICATES / "certificate.pem"), str(CERTIFICATES / "key.pem")
    context = ssl.create_default_context(cafile=certificate[0])
    async with serving_small(certificate=certificate) as served:
        with ExitStack() as stack:
            clients = await connect(served.port, stack)
            await wait_all_tasks_blocked(0.05)  # all are accepted
            hello = client_hello(context)
            with loop_rounds() as rounds:
                for client in clients:
                    client.send(hello)
                await answered(clients, first=b"\x16\x03")
            assert rounds.most_steps <= MOST_STEPS
            assert served.service.telemetry.failed == []


def client_hello(context: ssl.SSLContext) -> bytes:
    """Return the first bytes of a handshake."""
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()
