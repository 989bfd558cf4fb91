"""An HTTP request of the app: Quart answers it, or it becomes a stream of events, and then its session runs."""

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

ANSWER_BYTES_A_SECOND = 64 * 1024  # that a client has to take of an answer, beside `limits.write_seconds` for its beginning
NO_CODE = 1005  # what a session that ends without a close frame tells the operator


class EventStream(Response):
    """The head of a response whose body is what a session says."""

    def __init__(self) -> None:
        super().__init__(b"", headers=HEADERS, content_type=CONTENT_TYPE)
        self.timeout = None
        del self.headers["Content-Length"]


class ChatHTTPConnection(TrioASGIHTTPConnection):
    """Answers as Quart does; where a route left an `Admission` and returned an `EventStream`, runs the session then.

    Nothing of the request is left in memory by then.
    """

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, scope)
        self._head: list[tuple[bytes, bytes]] | None = None  # of a stream that is to begin
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
                with held:  # the answer is written, or never will be
                    held = None
            admission = cast("Admission | None", cast("dict[str, object]", self.scope).pop(ADMISSION, None))
            if admission is not None and (self._head is None or self._gone):
                with admission:  # it leads to no session: the client left, or something failed after the route
                    admission = None
        if admission is None or self._head is None or service is None:
            return
        with admission, awaiting_news(connection), trio.CancelScope() as scope:
            if isinstance(connection, ChatTCPServer):
                _notice_silence(connection)
            await self._stream(admission, service, receive, send, abort=partial(_abort, connection, scope))
        if scope.cancelled_caught:
            # What it has not taken, and then the end, are left for it to read; nobody waits for that.
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
            admission: whose place it takes.
            service: what runs it.
            receive: the ASGI callable.
            send: the ASGI callable.
            abort: ends this stream at once, and is told why.
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
        """Send what Quart answers, unless a stream is to begin."""
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
    """Return how much of an answer is in memory until it is written: of a file only a piece is."""
    body = response.response
    return len(body.data) if isinstance(body, DataBody) else FileBody.buffer_size


class Departure:
    """What a client says during a response: only that it is gone. Implements `ports.Inbox`."""

    __slots__ = ("_receive",)

    def __init__(self, receive: ASGIReceiveCallable) -> None:
        self._receive = receive

    async def receive(self) -> str | bytes | Disconnect:
        """Wait until the client is gone; what is left of its request is discarded."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        return Disconnect(code=NO_CODE)


def _abort(connection: object, scope: trio.CancelScope, reason: str | None) -> None:
    """End a stream that takes nothing, with its connection.

    Args:
        connection: what carries it, if that is ours.
        scope: of the stream.
        reason: for the operator; None if the service aborts it, which is going down.
    """
    if isinstance(connection, ChatTCPServer):
        connection.abort(reason)
    else:
        scope.cancel()


def _notice_silence(connection: ChatTCPServer) -> None:
    """Have the kernel end a connection whose client acknowledges nothing for long: there is no ping whose answer could be missed."""
    option: Any = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux; elsewhere the kernel's own patience counts, 15 minutes or so
    if option is not None:
        with suppress(OSError):  # no TCP: a Unix socket
            connection.bare_socket.setsockopt(socket.IPPROTO_TCP, option, round(connection.policy.limits.write_seconds * 1000))
