"""Writes bytes to a client: through its connection, if it is ours alone; otherwise through the server."""

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
CUT = " …"  # where the end of a reason is left out


class OnConnection:
    """What sinks have in common that write to the socket itself: all but what they write."""

    __slots__ = ("_connection", "_output", "_send", "direct")

    def __init__(self, connection: ChatTCPServer, send: ASGISendCallable) -> None:
        """Take no offers yet: `connection.start_taking` begins that.

        Args:
            connection: whose response has begun, all of it written.
            send: the ASGI callable, for the end.
        """
        self._connection = connection
        self._output = connection.output
        self._send = send
        self.direct = False

    async def flush(self) -> bool:
        """Wait until nothing is owed; return whether offers are still taken."""
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
        """Take nothing more, and write what is owed, then `message`; return whether that was done, and in time."""
        connection = self._connection
        if not self._output.taking:
            await trio.lowlevel.checkpoint()
            return False
        connection.stop_taking()
        with trio.move_on_after(connection.policy.limits.write_seconds) as scope:
            await self._send(message)  # appended to what is owed, and all of that is written
        if scope.cancelled_caught:
            connection.abort("write_seconds")
        return not scope.cancelled_caught


class ConnectionSink(OnConnection):
    """Writes frames to the socket itself: HTTP/1.1 on our own server, plain or TLS. See `ports.Sink`."""

    # Small, and the only object that most offers touch: a million a second go here, and each other object costs a
    # tenth of a system call, for the one before has driven it out of the processor's cache.
    __slots__ = ("_write",)

    def __init__(self, connection: ChatTCPServer, send: ASGISendCallable) -> None:
        """Begin to take offers, unless the client has left already, while it was being accepted.

        Args:
            connection: a WebSocket, all of whose handshake is written.
            send: the ASGI callable of the WebSocket, for its close frame.
        """
        super().__init__(connection, send)
        # Of the socket object, never a remembered descriptor: that may be another client's by now.
        self._write = connection.bare_socket.send
        if connection.times.pinged:
            connection.start_taking(self)

    def offer(self, frames: bytes) -> bool:
        """Write whole frames by one system call while nothing is owed; else behind what is."""
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
    """Hands messages to the server one by one: a server that is not ours. See `ports.Sink`.

    The server ends the connection when the session that closed it returns.
    """

    __slots__ = ("_abort", "_messages", "_open", "_owed", "_send", "_write_seconds")

    def __init__(self, send: ASGISendCallable, *, abort: Callable[[], None], write_seconds: float) -> None:
        """Begin to take offers.

        Args:
            send: the ASGI callable of a WebSocket that is accepted.
            abort: ends the WebSocket at once.
            write_seconds: for a single message.
        """
        self._send = send
        self._abort = abort
        self._write_seconds = write_seconds
        self._messages: deque[bytes] = deque()
        self._owed = 0
        self._open = True

    def offer(self, frames: bytes) -> bool:
        """Owe all of it, for nothing goes without waiting here."""
        if self._open:
            self._messages.extend(text_payloads(frames))
            self._owed += len(frames)
        return False

    async def flush(self) -> bool:
        """Hand over one message after the other.

        A message that is handed over is the server's: hypercorn sends it also where we are cancelled meanwhile.
        """
        await trio.lowlevel.checkpoint()
        while self._messages:
            payload = self._messages.popleft()
            self._owed -= len(payload) + len(text_header(len(payload)))
            await self._hand_over({"type": "websocket.send", "bytes": None, "text": payload.decode()})
        return self._open

    async def close(self, code: int, reason: str) -> None:
        """Hand over what is owed and a close frame, in time; the server ends the connection."""
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
        """Bytes of frames that the server has not been handed yet."""
        return self._owed

    async def _hand_over(self, message: ASGISendEvent) -> None:
        with trio.move_on_after(self._write_seconds) as scope:
            await self._send(message)
        if scope.cancelled_caught:
            self.abort()


def open_sink(scope: WebsocketScope, send: ASGISendCallable, *, abort: Callable[[], None]) -> Sink:
    """Return how bytes reach the client of a WebSocket whose accept has just been sent.

    Args:
        scope: of the WebSocket.
        send: its ASGI callable, as the app got it.
        abort: ends the WebSocket at once.
    """
    state = scope.get("state", {})
    connection = state.get(CONNECTION)
    if isinstance(connection, ChatTCPServer):
        return ConnectionSink(connection, send)
    return AsgiSink(send, abort=abort, write_seconds=policy_in(state).limits.write_seconds)


def cut_reason(reason: str) -> str:
    """Return as much of `reason` as fits in a close frame, in whole words; of a word that is longer than all that, its beginning."""
    data = reason.encode("utf-8", "replace")
    if len(data) <= REASON_BYTES:
        return data.decode()
    room = REASON_BYTES - len(CUT.encode())
    kept = data[:room].decode("utf-8", "ignore")
    if not data[len(kept.encode()) :].startswith(b" "):
        words, _, _ = kept.rpartition(" ")
        kept = words or kept
    return kept.rstrip(" ") + CUT
