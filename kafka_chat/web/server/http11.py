"""hypercorn's HTTP/1.1 on one connection, without HTTP/2; each refusal says why."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, cast

import h11
import trio
from h11._state import MIGHT_SWITCH_PROTOCOL
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.events import Body, Data, EndBody, Request, Response
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.protocol.ws_stream import ASGIWebsocketState
from hypercorn.trio.worker_context import EventWrapper

from .handshake import is_handshake, joined
from .head_buffer import HEAD_BYTES, HeadBuffer
from .policy import CONNECTION, policy_in
from .refusals import Refusal
from .websocket_stream import ChatWSStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config
    from hypercorn.events import Event
    from hypercorn.protocol.events import Event as StreamEvent
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import AppWrapper, ConnectionState, H11SendableEvent, TaskGroup

    from .connection import ChatTCPServer

VERSIONS = (b"1.0", b"1.1")
BODY_COPIES = 3  # how many times an incoming body is in memory, including spare room in buffers; measured
AGAIN_SECONDS = 5
REASON_CHARACTERS = 200  # of h11's error for a malformed request, which may quote all of it

TWO_LENGTHS = "a request may not have both Content-Length and Transfer-Encoding"
_TWO_LENGTHS = {b"content-length", b"transfer-encoding"}  # a proxy may have used the other one: RFC 9112 section 6.1

_READABLE = EventWrapper()  # shared by all connections: nothing waits for it, see `is_held`
_UNANSWERED = {ASGIHTTPState.REQUEST: ASGIHTTPState.RESPONSE, ASGIWebsocketState.HANDSHAKE: ASGIWebsocketState.RESPONSE}
_WHOLE = (h11.DONE, h11.MUST_CLOSE, MIGHT_SWITCH_PROTOCOL)  # states of the client's side after a complete request


class ChatH11Protocol(H11Protocol):
    """Reads requests one after the other, each after the previous answer.

    Replaces hypercorn's `ProtocolWrapper`, which switches to HTTP/2 when a client asks for it.

    Attributes:
        is_held: whether bytes after the current request are held back; `go_on` reads them once `has_turn`.
    """

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        task_group: TaskGroup,
        connection_state: ConnectionState,
        ssl: bool,  # noqa: FBT001 - as hypercorn calls it
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
        send: Callable[[Event], Awaitable[None]],
        alpn_protocol: str | None = None,
    ) -> None:
        super().__init__(app, config, context, task_group, connection_state, ssl, client, server, send)
        del alpn_protocol  # `http/1.1` or empty: no other is offered
        self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self.connection._receive_buffer = HeadBuffer()
        self.can_read = _READABLE
        self.is_held = False
        self._body_bytes = 0  # received of the current request; the app holds them until the answer is sent
        self._counted = 0
        self._closing = False  # the app is receiving the disconnect; what it still sends is dropped
        self._tcp: ChatTCPServer | None = connection_state.get(CONNECTION)

    @property
    def held_bytes(self) -> int:
        """How many bytes have arrived and are not parsed yet."""
        return len(self.connection.trailing_data[0])

    @property
    def has_begun(self) -> bool:
        """Whether a part of the next request has arrived; an empty line is none."""
        self._prepare_buffer()
        return self.held_bytes > 0

    @property
    def has_turn(self) -> bool:
        """Whether the previous request has been answered, so that the next one may be read."""
        return self.connection.their_state is h11.IDLE

    @property
    def is_busy(self) -> bool:
        """Whether the app is running, for a request or a WebSocket."""
        return self.stream is not None

    @property
    def is_answering(self) -> bool:
        """Whether a complete request is being answered; false for a WebSocket."""
        return self.stream is not None and self.connection.their_state in _WHOLE

    @property
    def waits_for_body(self) -> bool:
        """Whether a request's head has come, and its body is incomplete."""
        return self.connection.their_state is h11.SEND_BODY

    def close_after_answer(self) -> None:
        """Send `Connection: close` with the next answer."""
        self.keep_alive_requests = self.config.keep_alive_max_requests

    def forget_http(self) -> None:
        """Free what only requests need: no request follows a WebSocket, and it is a sixth of an idle one's memory."""
        if isinstance(self.connection, H11WSConnection):
            self.connection.h11_connection = cast("h11.Connection", None)

    async def handle(self, event: Event) -> None:
        """Handle bytes from the client, or its end."""
        if isinstance(event, RawData) and self.connection.their_state in (h11.MUST_CLOSE, h11.CLOSED):
            return  # bytes after the last request: RFC 9112 section 9.6
        await super().handle(event)
        if not self._count():
            await self._hold_no_more()

    async def stream_send(self, event: StreamEvent) -> None:
        """Send an event of the app, or hypercorn's 500 if the app ends without an answer; nothing if the request has ended.

        hypercorn notes that an answer has begun only after writing its head. If that write is cancelled, it would begin a second
        answer, and h11 would raise. So we note it before the write.
        """
        if self.stream is None or self._closing:
            await trio.lowlevel.checkpoint()
            return
        if isinstance(event, Response) and self.stream.state in _UNANSWERED:
            self.stream.state = _UNANSWERED[self.stream.state]  # type: ignore[assignment]
        await super().stream_send(event)

    async def _close_stream(self) -> None:
        self._closing = True
        await super()._close_stream()
        self._closing = False
        self._body_bytes = 0
        self._count()

    def _count(self) -> bool:
        """Count the held bytes of incomplete or unanswered requests; False if all clients together hold too many."""
        if self._tcp is None:
            return True
        unread = len(self.connection._receive_buffer) if isinstance(self.connection, h11.Connection) else 0
        held, before = unread + BODY_COPIES * self._body_bytes, self._counted
        self._counted = held
        return self._tcp.hold(held - before)

    async def _hold_no_more(self) -> None:
        if self.stream is None or self.waits_for_body:
            too_much = "unfinished requests and messages of clients fill the memory (memory.bytes); try again later"
            await self._end_with(Refusal(status=503, sentence=too_much, headers=((b"retry-after", b"%d" % AGAIN_SECONDS),)))
        elif self._tcp is not None:
            self._tcp.abort("memory")  # what follows the request that is being answered

    async def go_on(self) -> None:
        """Parse the held bytes, up to the next request that must wait."""
        self.is_held = False
        await self._handle_events()

    async def _handle_events(self) -> None:
        """Like hypercorn's, but returns when the next request must wait, so that the client's end is noticed meanwhile."""
        while self.connection.their_state not in (h11.MUST_CLOSE, h11.CLOSED):
            self._prepare_buffer()
            if self.connection.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=self.config.response_headers("h11"))
                await self._send_h11_event(go_on)
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError as error:
                await self._end_with(_malformed(error))
                return
            if isinstance(event, h11.Request):
                await self.send(Updated(idle=False))
                if event.http_version not in VERSIONS:
                    spoken = f"this service speaks HTTP/1.1, not HTTP/{event.http_version.decode('ascii')}"
                    await self._end_with(Refusal(status=505, sentence=spoken))
                    return
                if {name for name, _ in event.headers} >= _TWO_LENGTHS:
                    await self._end_with(Refusal(status=400, sentence=TWO_LENGTHS))
                    return
                await self._create_stream(event)
            elif event is h11.PAUSED:
                self.is_held = True
                return
            elif self.stream is None:
                return
            elif isinstance(event, h11.Data):
                self._body_bytes += len(event.data)
                await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
            elif isinstance(event, h11.EndOfMessage):
                await self.stream.handle(EndBody(stream_id=STREAM_ID))
            elif isinstance(event, Data):
                await self.stream.handle(event)
            else:
                return

    def _prepare_buffer(self) -> None:
        buffer = self.connection._receive_buffer if isinstance(self.connection, h11.Connection) else None
        if isinstance(buffer, HeadBuffer):
            buffer.has_body = self.waits_for_body
            if self.has_turn:
                buffer.skip_empty_lines()

    async def _create_stream(self, request: h11.Request) -> None:
        """Like hypercorn's, but headers that are lists may be spread over several lines."""
        headers, method = list(request.headers), request.method.upper()
        kind: type[ChatWSStream | HTTPStream] = HTTPStream
        if request.http_version != b"1.0" and is_handshake(method, headers):
            kind, headers = ChatWSStream, joined(headers)
            self.connection = H11WSConnection(cast("h11.Connection", self.connection))
        self.stream = kind(
            self.app, self.config, self.context, self.task_group, self.ssl, self.client, self.server, self.stream_send, STREAM_ID
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=headers,
                http_version=request.http_version.decode("ascii"),
                method=method.decode("ascii"),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def _end_with(self, refusal: Refusal) -> None:
        """Answer a request in place of the app, if it may still be answered, and end the connection."""
        policy_in(self.connection_state).telemetry.request_refused(status=refusal.status)
        self._closing = True
        if self.connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = list(chain(refusal.all_headers(), self.config.response_headers("h11")))
            await self._send_h11_event(h11.Response(status_code=refusal.status, headers=headers))
            await self._send_h11_event(h11.Data(data=refusal.body()))
            await self._send_h11_event(h11.EndOfMessage())
        await self.send(Closed())

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """Like hypercorn's, but drops the body of the answer to a HEAD."""
        if isinstance(event, h11.Data) and isinstance(self.connection, h11.Connection) and self.connection._request_method == b"HEAD":
            return
        await super()._send_h11_event(event)


def _malformed(error: h11.RemoteProtocolError) -> Refusal:
    said = str(error)[:REASON_CHARACTERS].encode("ascii", "replace").decode()
    if error.error_status_hint == 431:
        return Refusal(status=431, sentence=said)
    return Refusal(status=error.error_status_hint, sentence=f"the request cannot be understood: {said}")
