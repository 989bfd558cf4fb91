"""An HTTP request of the app: Quart answers it, or it becomes an event stream with a session."""

from __future__ import annotations

import socket
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import trio
from quart import Response
from quart.utils import encode_headers
from quart.wrappers.response import DataBody, FileBody
from quart_trio.asgi import TrioASGIHTTPConnection

from ...delivery.ports import Disconnect
from ..ports import ADMISSION, HELD, Admission
from ..requests.peer import peer_of
from ..requests.unavailable import CONTENT_TYPE, HEADERS
from ..server.connection import ChatTCPServer, awaiting_news
from ..server.policy import CONNECTION, policy_in
from .event_sink import open_events_sink, run_comments

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, HTTPScope
    from quart import Quart
    from quart.typing import ResponseTypes

    from ...delivery.ports import Sink
    from ..ports import Service

ANSWER_BYTES_A_SECOND = 64 * 1024  # the least speed at which a client must take an answer, after `limits.write_seconds`
NO_CODE = 1005  # in the log line of a session that ends without a close frame


class EventStream(Response):
    """The head of a response whose body is a session's events."""

    def __init__(self) -> None:
        super().__init__(b"", headers=HEADERS, content_type=CONTENT_TYPE)
        self.timeout = None
        del self.headers["Content-Length"]


class ChatHTTPConnection(TrioASGIHTTPConnection):
    """Answers as Quart does; if a route left an `Admission` and returned an `EventStream`, runs the session after that.

    The request is freed before the session runs.
    """

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, scope)
        self._head: list[tuple[bytes, bytes]] | None = None  # of a stream that is about to begin
        self._gone = False

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve one request, to its end."""
        connection = self.scope.get("state", {}).get(CONNECTION)
        service = cast("Service | None", getattr(self.app, "service", None))

        async def receive_and_see() -> ASGIReceiveEvent:
            event = await receive()
            self._gone = self._gone or event["type"] == "http.disconnect"
            return event

        try:
            await super().__call__(receive_and_see, send)
        finally:
            held = cast("Admission | None", cast("dict[str, object]", self.scope).pop(HELD, None))
            if held is not None:
                with held:  # release it: the answer is written, or never will be
                    held = None
            admission = cast("Admission | None", cast("dict[str, object]", self.scope).pop(ADMISSION, None))
            if admission is not None and (self._head is None or self._gone):
                with admission:  # release it: the client left, or something failed after the route
                    admission = None
        if admission is None or self._head is None or service is None:
            return
        with admission, awaiting_news(connection), trio.CancelScope() as scope:
            if isinstance(connection, ChatTCPServer):
                _notice_silence(connection)
            await self._stream(admission, service, receive, send, abort=partial(_abort, connection, scope))
        if scope.cancelled_caught:
            # It may read what it has not taken, and the end; nothing waits for that.
            with trio.move_on_after(0):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(
        self,
        admission: Admission,
        service: Service,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        *,
        abort: Callable[[str | None], None],
    ) -> None:
        """Run the session of a stream.

        Args:
            admission: its slot.
            service: runs the session.
            receive: the ASGI callable.
            send: the ASGI callable.
            abort: ends this stream at once; takes the reason.
        """
        async with trio.open_nursery() as nursery:

            async def accept() -> Sink:
                await send({"type": "http.response.start", "status": 200, "headers": self._head or [], "trailers": False})
                sink = open_events_sink(self.scope, self.scope.get("state", {}).get(CONNECTION), send, abort=abort)
                nursery.start_soon(run_comments, sink)
                return sink

            await service.run_session(admission, accept=accept, inbox=Departure(receive), peer=peer_of(self.scope))
            nursery.cancel_scope.cancel()

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        """Send Quart's answer, unless a stream is about to begin."""
        if isinstance(response, EventStream) and ADMISSION in self.scope:
            self._head = encode_headers(response.headers)
        else:
            await self._answer(send, response)

    async def _answer(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        """Send an answer that ends by itself, counted until it is written; cut off a client that takes it too slowly, however it drips."""
        state = self.scope.get("state", {})
        seconds = policy_in(state).limits.write_seconds + (response.content_length or 0) / ANSWER_BYTES_A_SECOND
        service = cast("Service | None", getattr(self.app, "service", None))
        with nullcontext() if service is None else service.owing(held_bytes(response)), trio.move_on_after(seconds) as scope:
            await super()._send_response(send, response)
        if scope.cancelled_caught:
            _abort(state.get(CONNECTION), scope, "write_seconds")


def held_bytes(response: ResponseTypes) -> int:
    """Return how many bytes of an answer are in memory until it is written; of a file only a piece is."""
    body = response.response
    return len(body.data) if isinstance(body, DataBody) else FileBody.buffer_size


class Departure:
    """An `Inbox` during a response, which receives only the end of the client."""

    __slots__ = ("_receive",)

    def __init__(self, receive: ASGIReceiveCallable) -> None:
        self._receive = receive

    async def receive(self) -> str | bytes | Disconnect:
        """Wait until the client is gone; the rest of its request is discarded."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        return Disconnect(code=NO_CODE)


def _abort(connection: object, scope: trio.CancelScope, reason: str | None) -> None:
    """End a stream whose client takes nothing, and its connection.

    Args:
        connection: its connection, if that is ours.
        scope: the stream's cancel scope.
        reason: for the operator; None if the service aborts it at its shutdown.
    """
    if isinstance(connection, ChatTCPServer):
        connection.abort(reason)
    else:
        scope.cancel()


def _notice_silence(connection: ChatTCPServer) -> None:
    """Make the kernel end a connection whose client acknowledges nothing for long, since there are no pings."""
    option: Any = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux; elsewhere the kernel's default holds, about 15 minutes
    if option is not None:
        with suppress(OSError):  # a Unix socket
            connection.bare_socket.setsockopt(socket.IPPROTO_TCP, option, round(connection.policy.limits.write_seconds * 1000))
