"""Writes server-sent events to a client as an unending response body: through its connection, or through the server."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import trio

from ...delivery.ports import Sink
from ..server.connection import ChatTCPServer
from ..server.policy import policy_in
from .websocket_sink import OnConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.typing import ASGISendCallable, HTTPResponseBodyEvent, HTTPScope

PIECE_BYTES = 16 * 1024  # each has a time limit, which a slow client that goes on reading can meet
SILENCE_SECONDS = 20.0  # proxies end silent connections, usually after 30 or 60 seconds
COMMENT = b":\n"  # without the empty line that ends an event, which some clients would take as an empty event

_END: HTTPResponseBodyEvent = {"type": "http.response.body", "body": b"", "more_body": False}


class Speaking(Sink, Protocol):
    """A sink that knows when it last wrote something."""

    @property
    def spoke_at(self) -> float:
        """When it last wrote something; `trio.current_time()`."""


async def run_comments(sink: Speaking) -> None:
    """Send a comment after each long silence, until cancelled or the connection is closed."""
    going = True
    while going:
        await trio.sleep_until(sink.spoke_at + SILENCE_SECONDS)
        if trio.current_time() >= sink.spoke_at + SILENCE_SECONDS:
            sink.offer(COMMENT)
            going = await sink.flush()


class ConnectionEventsSink(OnConnection):
    """A `Sink` that writes events directly to the socket, a chunk each (RFC 9112 section 7.1): HTTP/1.1 on our own server.

    The server begins and ends the chunked body; it does not see the chunks in between.
    """

    __slots__ = ("spoke_at",)

    def __init__(self, connection: ChatTCPServer, send: ASGISendCallable) -> None:
        """Start accepting offers.

        Args:
            connection: the connection of a request whose response has been started, with nothing owed.
            send: the request's ASGI callable.
        """
        super().__init__(connection, send)
        self.spoke_at = trio.current_time()
        self._output.start_taking(self)

    def offer(self, events: bytes) -> bool:
        """Write whole events as one chunk."""
        if not events:
            return not self._output.owed  # an empty chunk would end the body
        self.spoke_at = trio.current_time()
        return self._output.offer(b"%x\r\n%b\r\n" % (len(events), events))

    async def close(self, code: int, reason: str) -> None:
        """Write what is owed, and end the response; an event stream has neither code nor reason."""
        await self._end_with(_END)


class AsgiEventsSink:
    """A `Sink` that sends events through the server, piece by piece: HTTP/1.0, or a server that is not ours.

    Once a piece is handed over, the server writes it even if we are cancelled meanwhile.
    """

    __slots__ = ("_abort", "_handing", "_open", "_owed", "_pieces", "_send", "_write_seconds", "spoke_at")

    def __init__(self, send: ASGISendCallable, *, abort: Callable[[str | None], None], write_seconds: float) -> None:
        """Start accepting offers.

        Args:
            send: the ASGI callable of a request whose response has been started.
            abort: ends it at once; takes the reason for the operator, or None if that is reported elsewhere.
            write_seconds: the time limit of a piece.
        """
        self._send = send
        self._abort = abort
        self._write_seconds = write_seconds
        self._pieces: deque[bytes] = deque()
        self._owed = 0
        self._open = True
        self._handing = trio.Lock()
        self.spoke_at = trio.current_time()

    def offer(self, events: bytes) -> bool:
        """Owe everything, in pieces, because nothing can be written without waiting here."""
        if self._open:
            self._pieces.extend(events[begin : begin + PIECE_BYTES] for begin in range(0, len(events), PIECE_BYTES))
            self._owed += len(events)
            self.spoke_at = trio.current_time()
        return False

    async def flush(self) -> bool:
        """Send one piece after the other; return whether the stream goes on."""
        async with self._handing:
            while self._pieces:
                piece = self._pieces.popleft()
                self._owed -= len(piece)
                await self._hand_over(piece)
        return self._open

    async def close(self, code: int, reason: str) -> None:
        """Write what is owed, and end the response; an event stream has neither code nor reason."""
        if not self._open:
            await trio.lowlevel.checkpoint()
            return
        self._open = False
        with trio.move_on_after(self._write_seconds) as scope:
            await self.flush()
            await self._send(_END)
        if scope.cancelled_caught:
            self._give_up("write_seconds")

    def abort(self) -> None:
        """Drop what is owed, and end the stream now."""
        self._give_up(None)

    @property
    def owed(self) -> int:
        """Bytes that are not handed to the server yet."""
        return self._owed

    async def _hand_over(self, piece: bytes) -> None:
        with trio.move_on_after(self._write_seconds) as scope:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        if scope.cancelled_caught:
            self._give_up("write_seconds")

    def _give_up(self, reason: str | None) -> None:
        self._open = False
        self._pieces.clear()
        self._owed = 0
        self._abort(reason)


def open_events_sink(scope: HTTPScope, connection: object, send: ASGISendCallable, *, abort: Callable[[str | None], None]) -> Speaking:
    """Return the sink for the client of a request whose response has just been started.

    Args:
        scope: the request's scope.
        connection: its connection, if that is ours.
        send: the request's ASGI callable.
        abort: ends the stream at once; takes the reason.
    """
    if isinstance(connection, ChatTCPServer) and scope["http_version"] == "1.1":
        return ConnectionEventsSink(connection, send)
    return AsgiEventsSink(send, abort=abort, write_seconds=policy_in(scope.get("state", {})).limits.write_seconds)
