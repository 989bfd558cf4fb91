"""Writes frames to a client: directly to our own connection, or through another server."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from ...delivery.records.frames import text_header, text_payloads
from ..server.connection import ChatTCPServer
from ..server.policy import CONNECTION, policy_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.typing import ASGISendCallable, ASGISendEvent, WebsocketScope

    from ...delivery.ports import Sink

REASON_BYTES = 123  # a control frame's payload has 125, two are the code: RFC 6455 section 5.5
CUT = " …"  # replaces the rest of a reason


class OnConnection:
    """The common part of sinks that write directly to the socket."""

    __slots__ = ("_connection", "_output", "_send", "direct")

    def __init__(self, connection: ChatTCPServer, send: ASGISendCallable) -> None:
        """Make a sink that accepts no offers before `start_taking`.

        Args:
            connection: a connection whose response has begun, with nothing owed.
            send: the ASGI callable, for the end.
        """
        self._connection = connection
        self._output = connection.output
        self._send = send
        self.direct = False

    async def flush(self) -> bool:
        """Wait until nothing is owed; return whether offers are still accepted."""
        output = self._output
        if not output.owed:
            await trio.lowlevel.checkpoint()
        while output.owed:
            await output.drain()
        return output.taking

    def abort(self) -> None:
        """End the connection now, without a close frame."""
        self._connection.abort()

    @property
    def owed(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._output.owed

    async def _end_with(self, message: ASGISendEvent) -> bool:
        """Accept no more offers, and write what is owed, then `message`; return whether that was done in time."""
        connection = self._connection
        if not self._output.taking:
            await trio.lowlevel.checkpoint()
            return False
        connection.stop_taking()
        with trio.move_on_after(connection.policy.limits.write_seconds) as scope:
            await self._send(message)  # appends it to the owed bytes, and writes them
        if scope.cancelled_caught:
            connection.abort("write_seconds")
        return not scope.cancelled_caught


class ConnectionSink(OnConnection):
    """A `Sink` that writes frames directly to the socket: HTTP/1.1 on our own server, plain or TLS."""

    # Small, and the only object that most offers touch, because there are a million offers a second, and each further object costs
    # a tenth of a system call: other clients' objects have displaced it from the CPU caches.
    __slots__ = ("_write",)

    def __init__(self, connection: ChatTCPServer, send: ASGISendCallable) -> None:
        """Start accepting offers, unless the client has left while it was being accepted.

        Args:
            connection: a WebSocket whose handshake is written.
            send: the WebSocket's ASGI callable, for the close frame.
        """
        super().__init__(connection, send)
        # A method of the socket object, not a remembered descriptor, which may be another client's by now.
        self._write = connection.bare_socket.send
        if connection.times.pinged:
            self._output.start_taking(self)

    def offer(self, frames: bytes) -> bool:
        """Write whole frames with one system call if nothing is owed; otherwise append them."""
        if not self.direct:
            return self._output.offer(frames)
        try:
            sent = self._write(frames)
        except OSError:  # it is full, or gone
            return self._output.offer(frames)
        if sent == len(frames):
            return True
        self._output.owe(memoryview(frames)[sent:])
        return False

    async def close(self, code: int, reason: str) -> None:
        """Write what is owed and a close frame, and end the connection."""
        if await self._end_with({"type": "websocket.close", "code": code, "reason": cut_reason(reason)}):
            self._connection.end()


class AsgiSink:
    """A `Sink` that sends messages one by one through a server that is not ours.

    The server ends the connection when the session returns after the close.
    """

    __slots__ = ("_abort", "_messages", "_open", "_owed", "_send", "_write_seconds")

    def __init__(self, send: ASGISendCallable, *, abort: Callable[[], None], write_seconds: float) -> None:
        """Start accepting offers.

        Args:
            send: the ASGI callable of an accepted WebSocket.
            abort: ends the WebSocket at once.
            write_seconds: the time limit of a message.
        """
        self._send = send
        self._abort = abort
        self._write_seconds = write_seconds
        self._messages: deque[bytes] = deque()
        self._owed = 0
        self._open = True

    def offer(self, frames: bytes) -> bool:
        """Owe everything, because nothing can be written without waiting here."""
        if self._open:
            self._messages.extend(text_payloads(frames))
            self._owed += len(frames)
        return False

    async def flush(self) -> bool:
        """Send one message after the other.

        Once a message is handed over, hypercorn sends it even if we are cancelled meanwhile.
        """
        await trio.lowlevel.checkpoint()
        while self._messages:
            payload = self._messages.popleft()
            self._owed -= len(payload) + len(text_header(len(payload)))
            await self._hand_over({"type": "websocket.send", "bytes": None, "text": payload.decode()})
        return self._open

    async def close(self, code: int, reason: str) -> None:
        """Send what is owed and a close frame, within the time limit; the server ends the connection."""
        if not self._open:
            await trio.lowlevel.checkpoint()
            return
        self._open = False
        with trio.move_on_after(self._write_seconds) as scope:
            await self.flush()
            await self._hand_over({"type": "websocket.close", "code": code, "reason": cut_reason(reason)})
        if scope.cancelled_caught:
            self.abort()

    def abort(self) -> None:
        """Drop what is owed, and end the WebSocket now."""
        self._open = False
        self._messages.clear()
        self._owed = 0
        self._abort()

    @property
    def owed(self) -> int:
        """Bytes of frames that are not handed to the server yet."""
        return self._owed

    async def _hand_over(self, message: ASGISendEvent) -> None:
        with trio.move_on_after(self._write_seconds) as scope:
            await self._send(message)
        if scope.cancelled_caught:
            self.abort()


def open_sink(scope: WebsocketScope, send: ASGISendCallable, *, abort: Callable[[], None]) -> Sink:
    """Return the sink for the client of a WebSocket whose accept has just been sent.

    Args:
        scope: the WebSocket's scope.
        send: its ASGI callable, unwrapped.
        abort: ends the WebSocket at once.
    """
    state = scope.get("state", {})
    connection = state.get(CONNECTION)
    if isinstance(connection, ChatTCPServer):
        return ConnectionSink(connection, send)
    return AsgiSink(send, abort=abort, write_seconds=policy_in(state).limits.write_seconds)


def cut_reason(reason: str) -> str:
    """Return as many whole words of `reason` as fit in a close frame; if the first word does not fit, its beginning."""
    data = reason.encode("utf-8", "replace")
    if len(data) <= REASON_BYTES:
        return data.decode()
    room = REASON_BYTES - len(CUT.encode())
    kept = data[:room].decode("utf-8", "ignore")
    if not data[len(kept.encode()) :].startswith(b" "):
        words, _, _ = kept.rpartition(" ")
        kept = words or kept
    return kept.rstrip(" ") + CUT
