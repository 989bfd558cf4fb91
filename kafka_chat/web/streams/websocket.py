"""A WebSocket of the app: Quart's route admits it, then the session runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn, cast

import trio
from quart.asgi import ASGIWebsocketConnection
from quart_trio.asgi import TrioASGIWebsocketConnection

from ...delivery.ports import Disconnect, Sink
from ...delivery.session.notices import PLAIN_SUBPROTOCOL, SUBPROTOCOL
from ..ports import ADMISSION, ANSWERING, REFUSAL
from ..requests.peer import peer_of
from ..server.connection import ChatTCPServer
from ..server.policy import CONNECTION, FAILED_BY_SERVER
from ..server.websocket_stream import size_of
from .websocket_sink import open_sink

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, WebsocketScope
    from quart_trio import QuartTrio

    from ...delivery.session.dialogue import Answering
    from ...delivery.session.live_socket import Close
    from ..ports import Admission, Service, Serving


class ChatWebsocketConnection(TrioASGIWebsocketConnection):
    """Calls the route, then runs the admitted session, after freeing the request.

    A route either returns a response, which refuses the handshake, or leaves an `Admission` in the scope and returns nothing;
    if it also leaves an `Answering`, the client gets a dialogue instead of a session. A route cannot receive: only the
    session or dialogue does.
    """

    def __init__(self, app: QuartTrio, scope: WebsocketScope) -> None:
        # Not super's, which opens a channel of ten messages that is never read.
        self.app = app
        self.scope = scope
        self.receive_channel = cast("trio.MemoryReceiveChannel[bytes | str]", _Deaf)
        self._accepted = False
        self._closed = False

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve one WebSocket, from its handshake to its end."""
        await receive()  # websocket.connect
        admission = await self._decide(send)
        if admission is None:
            refusal = cast("Close | None", self._scope_dict().pop(REFUSAL, None))
            if refusal is not None:
                await self._refuse(refusal, send)
            return
        with admission:
            connection = self.scope.get("state", {}).get(CONNECTION)
            if isinstance(connection, ChatTCPServer):
                await self._serve(admission, receive, send, abort=connection.abort)
            else:
                with trio.CancelScope() as scope:
                    await self._serve(admission, receive, send, abort=scope.cancel)

    async def _serve(
        self, admission: Admission, receive: ASGIReceiveCallable, send: ASGISendCallable, *, abort: Callable[[], None]
    ) -> None:
        """Run the admitted session or dialogue.

        Args:
            admission: its slot.
            receive: the ASGI callable.
            send: the ASGI callable.
            abort: ends this WebSocket at once.
        """
        answering = cast("Answering | None", self._scope_dict().pop(ANSWERING, None))
        inbox = AsgiInbox(receive, self.scope.get("state", {}).get(CONNECTION))

        async def accept() -> Sink:
            subprotocol = self._subprotocol if answering is None or self._subprotocol == PLAIN_SUBPROTOCOL else None
            await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
            sink = open_sink(self.scope, send, abort=abort)
            self._scope_dict().clear()  # no longer needed; a browser sends kilobytes of headers
            return sink

        run = self._service.run_session if answering is None else partial(self._service.run_dialogue, answering=answering)
        await run(admission, accept=accept, inbox=inbox, peer=peer_of(self.scope))

    async def _refuse(self, refusal: Close, send: ASGISendCallable) -> None:
        """Accept and close a client that cannot read an HTTP status."""
        with trio.CancelScope() as scope:
            await send({"type": "websocket.accept", "subprotocol": self._subprotocol, "headers": []})
            await open_sink(self.scope, send, abort=scope.cancel).close(refusal.code, refusal.reason)

    @property
    def _subprotocol(self) -> str | None:
        offered = self.scope.get("subprotocols", ())
        return next((name for name in (SUBPROTOCOL, PLAIN_SUBPROTOCOL) if name in offered), None)

    @property
    def _service(self) -> Service:
        return cast("Service", cast("Serving", self.app).service)

    async def _decide(self, send: ASGISendCallable) -> Admission | None:
        """Let Quart answer; returns None if it has refused."""
        answered = False

        async def answer(message: ASGISendEvent) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await ASGIWebsocketConnection.handle_websocket(self, self._create_websocket_from_scope(answer), answer)
        except BaseException:
            self._give_back()
            raise
        if answered:
            self._give_back()
            return None
        return cast("Admission | None", self._scope_dict().pop(ADMISSION, None))

    def _give_back(self) -> None:
        """Release an admission without a session, because something failed after the route."""
        admission = cast("Admission | None", self._scope_dict().pop(ADMISSION, None))
        if admission is not None:
            with admission:
                pass

    def _scope_dict(self) -> dict[str, object]:
        return cast("dict[str, object]", self.scope)


class _Deaf:
    """Replaces the channel of a route."""

    @staticmethod
    async def receive() -> NoReturn:
        raise RuntimeError("a route cannot receive: it admits or refuses, and the session receives")


class AsgiInbox:
    """The messages of one client: an `Inbox`.

    Args:
        receive: the ASGI callable.
        connection: counts waiting messages, if it is ours.
    """

    __slots__ = ("_connection", "_receive")

    def __init__(self, receive: ASGIReceiveCallable, connection: object = None) -> None:
        self._receive = receive
        self._connection = connection

    async def receive(self) -> str | bytes | Disconnect:
        """Return the next message, whose bytes are no longer counted, or the end."""
        event = await self._receive()
        if event["type"] == "websocket.receive":
            text = event.get("text")
            said = text if text is not None else event.get("bytes") or b""
            if isinstance(self._connection, ChatTCPServer):
                self._connection.hold(-size_of(said))
            return said
        if event["type"] == "websocket.disconnect":
            return Disconnect(code=event.get("code", 1005), by_service=bool(cast("dict[str, object]", event).get(FAILED_BY_SERVER)))
        raise AssertionError(f"a WebSocket got {event['type']}")
