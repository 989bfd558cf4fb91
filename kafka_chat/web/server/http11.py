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
BODY_COPIES = 3  # of a body that comes in, the buffers' room to grow included; measured
AGAIN_SECONDS = 5
REASON_CHARACTERS = 200  # of what h11 says of a malformed request, which may quote all of it

TWO_LENGTHS = "a request may not have both Content-Length and Transfer-Encoding"
_TWO_LENGTHS = {b"content-length", b"transfer-encoding"}  # a proxy may have taken the other one for its end: RFC 9112 section 6.1

_READABLE = EventWrapper()  # for all connections: nobody waits for it, see `is_held`
_UNANSWERED = {ASGIHTTPState.REQUEST: ASGIHTTPState.RESPONSE, ASGIWebsocketState.HANDSHAKE: ASGIWebsocketState.RESPONSE}
_WHOLE = (h11.DONE, h11.MUST_CLOSE, MIGHT_SWITCH_PROTOCOL)  # the client's side of a request that has come to its end


class ChatH11Protocol(H11Protocol):
    """Reads requests one after the other, and has each answered.

    It stands in the place of hypercorn's `ProtocolWrapper`, which would go over to HTTP/2 where a client asks for that.

    Attributes:
        is_held: there is more behind the request that is being answered; `go_on` reads it once `has_turn`.
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
        del alpn_protocol  # it says `http/1.1`, or nothing: no other is offered
        self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self.connection._receive_buffer = HeadBuffer()
        self.can_read = _READABLE
        self.is_held = False
        self._body_bytes = 0  # that have come of the request that is read or answered; the app has them until then
        self._counted = 0
        self._closing = False  # the app is being told of the end of its request, and what it still says reaches nobody
        self._tcp: ChatTCPServer | None = connection_state.get(CONNECTION)

    @property
    def held_bytes(self) -> int:
        """How much has come, and is not read yet."""
        return len(self.connection.trailing_data[0])

    @property
    def has_turn(self) -> bool:
        """Whether the request before has been answered, so that the next one may be read."""
        return self.connection.their_state is h11.IDLE

    @property
    def is_busy(self) -> bool:
        """Whether the app is at work, for a request or a WebSocket."""
        return self.stream is not None

    @property
    def is_answering(self) -> bool:
        """Whether a request that came in whole is being answered; a WebSocket is none."""
        return self.stream is not None and self.connection.their_state in _WHOLE

    @property
    def waits_for_body(self) -> bool:
        """Whether a request is there whose body is not."""
        return self.connection.their_state is h11.SEND_BODY

    def close_after_answer(self) -> None:
        """Say `Connection: close` with the next answer."""
        self.keep_alive_requests = self.config.keep_alive_max_requests

    def forget_http(self) -> None:
        """Drop what only requests need: there is none behind a WebSocket, and it is a sixth of what an idle one holds."""
        if isinstance(self.connection, H11WSConnection):
            self.connection.h11_connection = cast("h11.Connection", None)

    async def handle(self, event: Event) -> None:
        """Take what came from the client, or its end."""
        if isinstance(event, RawData) and self.connection.their_state in (h11.MUST_CLOSE, h11.CLOSED):
            return  # it is behind a request that was to be the last: RFC 9112 section 9.6
        await super().handle(event)
        if not self._count():
            await self._hold_no_more()

    async def stream_send(self, event: StreamEvent) -> None:
        """Send what the app, or hypercorn in its place, has to say of a request; nothing where the connection has ended with it.

        Where an app ends without an answer hypercorn says 500. It takes note of an answer only once its head is written, which may
        be cancelled: it would begin a second answer, at which h11 raises. So that an answer has begun is noted first.
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
        """Count what is held of requests that are not whole, or not answered; False where all clients together have too much of that."""
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
            self._tcp.abort("memory")  # what is behind the request that is being answered

    async def go_on(self) -> None:
        """Read what is held back, as far as it has its turn."""
        self.is_held = False
        await self._handle_events()

    async def _handle_events(self) -> None:
        """Like hypercorn's, but it returns where the next request has to wait: the client's end is to be seen meanwhile."""
        while self.connection.their_state not in (h11.MUST_CLOSE, h11.CLOSED):
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

    async def _create_stream(self, request: h11.Request) -> None:
        """Like hypercorn's; headers that are lists may be spread over several lines."""
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
        """Answer a request that the app does not get to see, if it may still be answered, and end the connection."""
        policy_in(self.connection_state).telemetry.request_refused(status=refusal.status)
        self._closing = True
        if self.connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = list(chain(refusal.all_headers(), self.config.response_headers("h11")))
            await self._send_h11_event(h11.Response(status_code=refusal.status, headers=headers))
            await self._send_h11_event(h11.Data(data=refusal.body()))
            await self._send_h11_event(h11.EndOfMessage())
        await self.send(Closed())

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """Like hypercorn's; what the answer to a HEAD has no room for is left out."""
        if isinstance(event, h11.Data) and isinstance(self.connection, h11.Connection) and self.connection._request_method == b"HEAD":
            return
        await super()._send_h11_event(event)


def _malformed(error: h11.RemoteProtocolError) -> Refusal:
    said = str(error)[:REASON_CHARACTERS].encode("ascii", "replace").decode()
    if error.error_status_hint == 431:
        return Refusal(status=431, sentence=said)
    return Refusal(status=error.error_status_hint, sentence=f"the request cannot be understood: {said}")
