"""hypercorn's WebSocket, with limits on what a client may send, and a close frame that says why it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import trio
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, FrameTooLargeError, WebsocketBuffer, WSStream
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping
from wsproto.frame_protocol import CloseReason

from .handshake import early_frame, refusal_of
from .policy import CONNECTION, FAILED_BY_SERVER, FIRST_MESSAGE_BYTES, policy_in

if TYPE_CHECKING:
    from collections import deque

    from hypercorn.typing import WebsocketAcceptEvent, WebsocketDisconnectEvent
    from wsproto.events import Event as WSProtoEvent

    from .connection import ChatTCPServer
    from .refusals import Refusal

EVENTS_A_TURN = 32  # between two checkpoints: 64 KiB of tiny frames are 10,000 events, and take a fifth of a second
FAILED_SECONDS = 0.5  # for a client that violated the protocol to read why
IDLE_FRAMES = 1_000  # pings, pongs and fragments, which the app does not see, …
IDLE_SECONDS = 10.0  # … in this many seconds; the session limits messages

_REASONS: dict[int, str] = {
    CloseReason.MESSAGE_TOO_BIG: "too_large",
    CloseReason.POLICY_VIOLATION: "too_many_frames",
    CloseReason.TRY_AGAIN_LATER: "memory",
}


class ChatWSStream(WSStream):
    """A WebSocket, the only stream of its connection."""

    buffer: MessageBuffer  # type: ignore[mutable-override]  # from the first event on
    tcp: ChatTCPServer | None = None  # its connection, if that is ours
    _counted_since = 0.0
    _idle_frames = 0
    _held = 0  # bytes of the incoming message; the inbox releases those of complete ones
    _has_failed = False  # the close code is ours
    close_code = CloseReason.ABNORMAL_CLOSURE.value  # for the app; hypercorn drops the client's

    async def handle(self, event: Event) -> None:
        """Handle an event from the client."""
        if self.closed:
            return
        if isinstance(event, Request):
            self.tcp = event.state.get(CONNECTION)
            policy = policy_in(event.state)
            self.buffer = MessageBuffer(policy.limits.client_message_bytes)
            refusal = refusal_of(event.headers)
            if refusal is not None:
                policy.telemetry.request_refused(status=refusal.status)
                await self._refuse(refusal)
                return
            await super().handle(event)
            if self.closed:  # refused by hypercorn, which sends `connection: close` and leaves it open
                await self.send(StreamClosed(stream_id=self.stream_id))
        elif isinstance(event, StreamClosed):
            self.closed = True
            self._forget_parser()
            await self._send_disconnect()
        elif isinstance(event, (Body, Data)) and not self.handshake.accepted:
            policy_in(self.scope["state"]).telemetry.request_refused(status=400)
            await self._refuse(early_frame())
        else:
            await super().handle(event)

    def _forget_parser(self) -> None:
        """Break the reference cycle of wsproto's parser and its generator, which only a full garbage collection would free."""
        connection = getattr(self, "connection", None)
        if connection is not None:  # accepted
            connection._proto._parse_more = iter(())

    async def _refuse(self, refusal: Refusal) -> None:
        """Refuse a handshake in place of the app, and end the connection."""
        self.closed = True  # first: the app may be about to accept
        await self._send_disconnect()
        await self.send(Response(stream_id=self.stream_id, status_code=refusal.status, headers=refusal.all_headers()))
        await self.send(Body(stream_id=self.stream_id, data=refusal.body()))
        await self.send(EndBody(stream_id=self.stream_id))
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send_disconnect(self) -> None:
        if self.app_put is not None:
            event = {"type": "websocket.disconnect", "code": self.close_code, FAILED_BY_SERVER: self._has_failed}
            await self.app_put(cast("WebsocketDisconnectEvent", event))

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        # Deflate costs 90 KiB per socket, and cannot be used by frames that are rendered once for all clients.
        self.handshake.extensions = None
        self.buffer.max_length = max(self.buffer.max_length, cast("dict[str, int]", self.scope).get(FIRST_MESSAGE_BYTES, 0))
        await super()._accept(message)
        # An empty deque takes 760 bytes; wsproto fills it only at the end of its input, which we never report.
        self.connection._events = cast("deque[WSProtoEvent]", ())
        if self.tcp is not None and self._is_open:
            self.tcp.became_websocket()

    @property
    def _is_open(self) -> bool:
        """Whether messages may be sent: accepted, and neither side has begun to close."""
        accepted = self.state is ASGIWebsocketState.CONNECTED
        return accepted and not self.closed and self.connection.state is ConnectionState.OPEN

    async def _handle_events(self) -> None:
        """Like hypercorn's, with three differences.

        It keeps the client's close code. It answers messages that are too large, bad UTF-8, broken frames and too many
        control frames with a close frame, and reads nothing after it. It yields between many small frames.
        """
        for count, event in enumerate(self.connection.events(), 1):
            if isinstance(event, Message):
                try:
                    self.buffer.extend(event)
                except FrameTooLargeError:
                    reason = f"a message may have {self.buffer.max_length} bytes"
                    await self._fail(CloseReason.MESSAGE_TOO_BIG, reason)
                    return
                if not self._hold(event):
                    await self._fail(
                        CloseReason.TRY_AGAIN_LATER, "messages of clients that wait for their answers fill the memory (memory.bytes)"
                    )
                    return
                if event.message_finished and self.app_put is not None:
                    message = self.buffer.to_message()
                    self.buffer.clear()
                    await self.app_put(message)
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                if self.connection.state is ConnectionState.OPEN:  # wsproto's way to report a broken frame
                    await self._fail(event.code, event.reason)
                    return
                self.close_code = int(event.code)
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                await self.send(StreamClosed(stream_id=self.stream_id))
                return
            if not (isinstance(event, Message) and event.message_finished) and self._has_too_many_idle_frames():
                await self._fail(CloseReason.POLICY_VIOLATION, f"more than {IDLE_FRAMES} control frames or fragments in {IDLE_SECONDS:g} s")
                return
            if count % EVENTS_A_TURN == 0:
                await trio.lowlevel.checkpoint()

    def _hold(self, event: Message[str]) -> bool:
        """Count the bytes of an incoming message; of a complete one, those that the app's inbox will subtract again.

        Returns:
            Whether there is room for it.
        """
        if self.tcp is None:
            return True
        held, self._held = self._held, 0 if event.message_finished else self.buffer.size
        return self.tcp.hold((self.buffer.size if event.message_finished else self._held) - held)

    def _has_too_many_idle_frames(self) -> bool:
        """Count a control frame or a fragment; returns whether there are too many."""
        now = trio.current_time()
        if now - self._counted_since >= IDLE_SECONDS:
            self._counted_since, self._idle_frames = now, 0
        self._idle_frames += 1
        return self._idle_frames > IDLE_FRAMES

    async def _fail(self, code: int, reason: str | None) -> None:
        """Send a close frame that says why, and end soon, whether or not the client reads or the app listens."""
        self.close_code, self._has_failed = int(code), True
        if self.tcp is not None:
            self.tcp.over_within(FAILED_SECONDS)
            self.tcp.policy.telemetry.connection_aborted(peer=self.tcp.peer, reason=_REASONS.get(code, "protocol_error"))
        await self._send_wsproto_event(CloseConnection(code=code, reason=reason))
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send_wsproto_event(self, event: WSProtoEvent) -> None:
        if isinstance(event, CloseConnection) and self.tcp is not None:
            self.tcp.stop_taking()  # in the step that appends the close frame
        await super()._send_wsproto_event(event)


class MessageBuffer(WebsocketBuffer):
    """Collects an incoming message; counts bytes where hypercorn counts characters, and stores nothing beyond the limit.

    Attributes:
        size: how many bytes have come.
    """

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length)
        self.size = 0
        self._limit = max_length

    def extend(self, event: Message[str]) -> None:
        """Add a fragment of a message, text or binary.

        Raises:
            FrameTooLargeError: the message has more bytes than allowed.
        """
        data: str | bytes = event.data
        self.size += size_of(data)
        if self.size > self.max_length:
            self.value = None
            raise FrameTooLargeError
        super().extend(event)

    def clear(self) -> None:
        """Prepare for the next message."""
        super().clear()
        self.size = 0
        self.max_length = self._limit  # the first message may have had a higher one


def size_of(data: str | bytes) -> int:
    """Return the bytes of a message, or of a fragment, on the wire."""
    return len(data.encode()) if isinstance(data, str) and not data.isascii() else len(data)
