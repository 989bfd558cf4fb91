"""One WebSocket of a client, from its handshake to its end."""

from __future__ import annotations

import ssl
from collections import deque
from contextlib import asynccontextmanager, contextmanager
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from ..nursery import open_tasks
from .http_api import Away, Refused, bearer, refusal, unreached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from .address import Address
    from .events import Answer

SUBPROTOCOL = "kafka-chat.v1"

OPENING_SECONDS = 20.0  # the service may wait for its brokers before it accepts, and many clients may connect at once
QUIET_SECONDS = 30.0  # after this long without a frame we ping the service
PONG_SECONDS = 10.0  # how long it may take to answer
CLOSING_SECONDS = 1.0
QUEUED_FRAMES = 16  # between the socket and us; the limit that matters is that of `Arrivals`
LONGEST_FRAME = 1 << 26  # bytes; `limits.message_bytes` may exceed trio-websocket's default
UNANSWERED_OPS = 24  # the service allows 32
OPS, OPS_SECONDS = 900, 10.0  # ops per period; the service allows 1,000


class Closed(NamedTuple):
    """How a connection ended; 1006 if no close frame came."""

    code: int
    reason: str


LOST = Closed(1006, "the connection was lost")
SILENT = Closed(1006, "the service no longer answers")


class Connection:
    """An open connection.

    Attributes:
        speaks_v1: whether the service has accepted kafka-chat.v1.
        quiet_seconds: how long it may be silent before it is pinged.
        limit_bytes: the limit of our messages; None before the service has sent it.
    """

    def __init__(self, socket: WebSocketConnection, tasks: trio.Nursery) -> None:
        self.speaks_v1 = socket.subprotocol == SUBPROTOCOL
        self.quiet_seconds = QUIET_SECONDS
        self.limit_bytes: int | None = None
        self._socket = socket
        self._tasks = tasks
        self._ops, self._to_write = trio.open_memory_channel[str](inf)
        self._asked: dict[int, _Asked] = {}
        self._last_mark = 0
        self._unanswered = trio.Semaphore(UNANSWERED_OPS)
        self._ended = False
        tasks.start_soon(self._write_ops)

    async def receive(self) -> str | bytes | Closed:
        """Return the next frame, or how the connection ended. A silent connection is ended, too."""
        try:
            while True:
                with trio.move_on_after(self.quiet_seconds):
                    return await self._socket.get_message()
                with trio.fail_after(PONG_SECONDS), trio.CancelScope() as pong:
                    self._tasks.start_soon(self._ping, pong)
                    return await self._socket.get_message()
        except ConnectionClosed as closed:
            return _how(closed)
        except trio.TooSlowError:
            return SILENT

    def say(self, op: Mapping[str, object]) -> None:
        """Send a frame that gets no answer."""
        self._ops.send_nowait(_encode(op))

    async def ask(self, op: Mapping[str, object]) -> Answer | None:
        """Send an op, and return its answer; None if the connection ended first.

        Raises:
            Refused: it is longer than the service accepts.
        """
        async with self._unanswered:
            if self._ended:
                return None
            self._last_mark += 1
            mark, asked = self._last_mark, _Asked()
            frame = _encode({**op, "re": mark})
            size = len(frame.encode())
            if self.limit_bytes is not None and size > self.limit_bytes:
                raise Refused(f"it has {size} bytes; at most {self.limit_bytes} are allowed", code=413)
            self._asked[mark] = asked
            try:
                self._ops.send_nowait(frame)  # a separate task writes it, because a cancelled write leaves half a frame
                await asked.answered.wait()
            finally:
                del self._asked[mark]
        return asked.answer

    def answer(self, answer: Answer) -> bool:
        """Pass an answer to its asker; return False if there is none."""
        asked = self._asked.get(answer.re) if isinstance(answer.re, int) else None
        if asked is None:
            return False
        asked.answer = answer
        asked.answered.set()
        return True

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a task during the connection."""
        self._tasks.start_soon(work)

    def end(self) -> None:
        """End all waits for answers."""
        self._ended = True
        for asked in self._asked.values():
            asked.answered.set()

    async def _ping(self, pong: trio.CancelScope) -> None:
        try:
            await self._socket.ping()
        except ConnectionClosed:
            return  # the receiver learns of it
        pong.cancel()

    async def _write_ops(self) -> None:
        written: deque[float] = deque([-inf], maxlen=OPS)
        async for frame in self._to_write:
            if len(written) == OPS:
                await trio.sleep_until(written[0] + OPS_SECONDS)
            written.append(trio.current_time())
            try:
                await self._socket.send_message(frame)
            except ConnectionClosed:
                return  # the receiver learns of it


@asynccontextmanager
async def open_connection(address: Address, path: str, *, token: str | None = None) -> AsyncIterator[Connection]:
    """Keep a connection while the block runs.

    Args:
        address: of the service.
        path: from `/` on, percent-encoded, with its query.
        token: says who connects; None for none.

    Raises:
        Refused: the service refuses, and would refuse again.
        Away: there is no connection now.
    """
    try:
        async with open_tasks() as tasks, await _open_stream(address) as stream:
            socket = await _shake_hands(tasks, stream, address, path, bearer(token))
            connection = Connection(socket, tasks)
            try:
                yield connection
                with trio.move_on_after(CLOSING_SECONDS):
                    await socket.aclose()
            finally:
                connection.end()
    except ConnectionRejected as rejected:
        headers = dict(rejected.headers)
        raise refusal(address, rejected.status_code, rejected.body or b"", headers.get(b"retry-after", b"").decode()) from rejected


class _Noticing(trio.abc.Stream):
    """A stream that reports its end, because trio-websocket would go on waiting for the answer to its handshake."""

    def __init__(self, stream: trio.abc.Stream, ended: Callable[[], None]) -> None:
        self._stream = stream
        self._ended = ended

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As trio's stream does."""
        with self._noticing():
            data = await self._stream.receive_some(max_bytes)
        if not data:
            self._ended()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As trio's stream does."""
        with self._noticing():
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As trio's stream does."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """As trio's stream does."""
        await self._stream.aclose()

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._ended()
            raise


async def _open_stream(address: Address) -> trio.abc.Stream:
    with trio.move_on_after(OPENING_SECONDS):
        try:
            stream: trio.abc.Stream = await trio.open_tcp_stream(address.host, address.port or (443 if address.secure else 80))
            return await _secured(stream, address.host) if address.secure else stream
        except (OSError, trio.BrokenResourceError) as error:
            raise Away(unreached(address, error)) from error
    raise _no_answer(address)


async def _secured(stream: trio.abc.Stream, host: str) -> trio.abc.Stream:
    secured = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=host, https_compatible=True)
    try:
        await secured.do_handshake()  # now, so that a bad certificate is reported
    except BaseException:
        await trio.aclose_forcefully(secured)
        raise
    return secured


async def _shake_hands(
    tasks: trio.Nursery, stream: trio.abc.Stream, address: Address, path: str, headers: Mapping[str, str]
) -> WebSocketConnection:
    """Open a WebSocket whose reader is one of `tasks`; a refusal is raised there."""
    with trio.move_on_after(OPENING_SECONDS), trio.CancelScope() as handshake:
        return await wrap_client_stream(
            tasks,
            _Noticing(stream, handshake.cancel),  # type: ignore[arg-type]  # any stream will do
            address.origin,
            address.prefix + path,
            subprotocols=[SUBPROTOCOL],
            extra_headers=[(name.encode(), value.encode()) for name, value in headers.items()],
            message_queue_size=QUEUED_FRAMES,
            max_message_size=LONGEST_FRAME,
        )
    if handshake.cancelled_caught:
        raise Away(f"{address.origin} cannot be reached: the connection ended before it was open")
    raise _no_answer(address)


def _no_answer(address: Address) -> Away:
    return Away(f"{address.origin} cannot be reached: no answer within {OPENING_SECONDS:g} s")


class _Asked:
    """An op without an answer yet."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Answer | None = None


def _how(closed: ConnectionClosed) -> Closed:
    if closed.reason is None or closed.reason.code == LOST.code:
        return LOST
    return Closed(int(closed.reason.code), closed.reason.reason or "")


def _encode(op: Mapping[str, object]) -> str:
    return msgspec.json.encode(op).decode()
