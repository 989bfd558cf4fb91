"""hypercorn's TCP connection, made fit to be left alone with strangers.

hypercorn on trio lets one connection's error end the process, shields its sends from cancellation, and sets them no
limit. `ChatTCPServer` is put in its place by `install.py`, so it is there under the plain `hypercorn -k trio`, too.
"""

from __future__ import annotations

import socket
import struct
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from random import uniform
from typing import TYPE_CHECKING, Protocol, Self, cast

import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer

from ...delivery.records.frames import PING
from .owed_bytes import OwedBytes
from .policy import CONNECTION, policy_in
from .tls import OwedTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from hypercorn.config import Config
    from hypercorn.trio.worker_context import TrioSingleTask, WorkerContext
    from hypercorn.typing import AppWrapper, LifespanState

    from .sides import DirectWriter, Requests

LINGER_SECONDS = 0.5  # for the client to read our last words: closing at once resets a client that is still sending
FIRST_WORDS_SECONDS = 0.5  # for who has just connected when the shutdown begins, and was taken in, to say what for
SPARE_SECONDS = 5.0  # for a connection beyond the limit to ask how the service is, or be refused
GONE_SECONDS = 1.0  # for the app to end by itself once the client is gone
HELD_BYTES = MAX_RECV  # of requests behind the one that is being answered; no more is read until it is

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s; what the kernel holds for a stuck client is dropped, too


class ChatTCPServer(OwedBytes, TCPServer):
    """One TCP connection.

    Attributes:
        peer: the client's address, for log lines.
        is_spare: it is one beyond `limits.connections`: nobody is served here, but told how the service is.

    Whatever hypercorn or we have to say goes through `OwedBytes`, so the order is that of the decisions: nothing of ours before
    the 101, no pong inside a message, nothing behind a close frame.
    """

    def __init__(
        self, app: AppWrapper, config: Config, context: WorkerContext, state: LifespanState, stream: trio.SSLStream[trio.SocketStream]
    ) -> None:
        # hypercorn gives all connections one and the same dict.
        TCPServer.__init__(self, app, config, context, {**state, CONNECTION: self}, stream)
        self.send_lock = cast("trio.Lock", None)  # 0.4 KiB, and most connections never have to wait: see `_drain_lock`
        self.policy = policy_in(state)
        tls = isinstance(stream, trio.SSLStream)
        OwedBytes.__init__(self, stream.transport_stream.socket if tls else cast("trio.SocketStream", stream).socket, tls=tls)
        self.peer = _peer(self._socket)
        self._scope = trio.CancelScope()
        self._direct_writer: DirectWriter | None = None
        self._taking = False  # offers; from the accept to the first sign of the end
        self._ending = False
        self._ping_at = 0.0
        self._busy_at: float | None = None  # when the request that is being served began
        self._has_asked = False  # for anything
        self.is_spare = False
        self._pinged = False  # it is a WebSocket, and no close frame has been appended
        self._awaits_news = False  # what is being answered ends with its client
        self._waiting: trio.CancelScope | None = None  # the read loop, where it waits for something else than bytes, too

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    # Life and death

    async def run(self) -> None:
        """Serve until either side ends it. Raises nothing: an error is told, and ends this connection alone."""
        turn = self.policy.keepalive.watch(self)
        connections = self.policy.connections
        connections.count += 1
        self.is_spare = connections.are_too_many
        if connections.are_far_too_many:
            self.abort("connections")
        elif self.is_spare:
            self.over_within(SPARE_SECONDS)
        try:
            with self._scope:
                try:
                    if not self._gone and (not self._tls or await self._shake_hands()):
                        await super().run()
                except* Exception as errors:  # noqa: BLE001 - the outer wall round a connection
                    self.policy.telemetry.connection_failed(peer=self.peer, error=errors)
        finally:
            self._shut()
            connections.count -= 1
            self.policy.keepalive.unwatch(self, turn)
            self._untie()

    def _untie(self) -> None:
        """Let go of what refers back to us, so that all of an ended connection is freed at once.

        Else it waits for a collection of cyclic garbage that looks at everything, which has to be seldom: with 5,000 clients
        it holds up the loop for half a second.
        """
        self._direct_writer = None
        self.state.clear()
        for name in ("protocol", "_task_group", "stream"):  # not all are there where it ended before it began
            self.__dict__.pop(name, None)

    def abort(self, reason: str | None = None) -> None:
        """End it now: frees whoever reads or writes, and cancels its tasks. Nothing waits for hypercorn to notice.

        Args:
            reason: for the operator; None if that is told elsewhere.
        """
        if self._gone:
            return
        if reason is not None:
            self.policy.telemetry.connection_aborted(peer=self.peer, reason=reason)
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._shut()
        self._scope.cancel()

    def end(self) -> None:
        """All is said: half-close, give the client a moment to read it and to close, then be over."""
        if not self._ending:
            self._ending = True
            self.stop_taking()
            self.over_within(LINGER_SECONDS)
            self._half_close()
            self._wake_reader()

    def over_within(self, seconds: float) -> None:
        """Cancel all of this connection's tasks after so many seconds, if they have not ended."""
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + seconds)

    @property
    def wait_terminated(self) -> Callable[[], Awaitable[None]]:
        """Waits until the server's shutdown has begun, whichever command it was started with."""
        return self.context.terminated.wait

    def check_alive(self, now: float) -> None:
        """See `Pingable`."""
        limits = self.policy.limits
        if self._gone or self._ending:
            return
        if self._pinged:
            if now - self._heard_at >= limits.ping_seconds + limits.pong_seconds:
                self.abort("pong_seconds")
            elif now >= self._ping_at:
                self._ping_at = now + limits.ping_seconds
                # A ping behind owed bytes would say nothing that the write limit does not.
                if (self.owed or not self.write(PING)) and not self._drain_lock.locked():
                    self._task_group.spawn(self.drain)
        elif self._busy_at is not None and now - self._busy_at >= self.policy.request_seconds and self._requests.waits_for_body:
            self.abort("request_seconds")

    def stood_still(self, seconds: float) -> None:
        """See `Pingable`."""
        self._heard_at = min(self._heard_at + seconds, trio.current_time())
        self._ping_at += seconds
        if self._busy_at is not None:
            self._busy_at += seconds

    def became_websocket(self) -> None:
        """A WebSocket is accepted, and the client has been told: from now on it is pinged."""
        now = trio.current_time()
        self._pinged = True
        self._heard_at = now
        # Clients that came in the same instant, all of them after a restart, are not pinged in the same instant.
        self._ping_at = now + self.policy.limits.ping_seconds * uniform(0.5, 1.0)
        self._requests.forget_http()
        self.idle_task = cast("TrioSingleTask", None)
        self.state.clear()

    @contextmanager
    def awaiting_news(self) -> Iterator[None]:
        """For as long as the block lasts, the client's FIN ends what is being answered; else it gets an answer behind a FIN, too.

        A client may close its side and wait for an answer that ends by itself (RFC 9112 section 9.6). But where an answer goes on
        for ever, the FIN is the only sign that the client is gone.
        """
        self._awaits_news = True
        self._wake_reader()
        try:
            yield
        finally:
            self._awaits_news = False

    # Writing

    @property
    def taking(self) -> bool:
        """Whether offers are taken."""
        return self._taking

    def start_taking(self, writer: DirectWriter) -> None:
        """Take offers, unless the end has begun.

        Args:
            writer: is told from now on whether it may write to the socket itself.
        """
        self._direct_writer = writer
        self._taking = not (self._ending or self._gone)
        self._room_changed()

    def stop_taking(self) -> None:
        """Take no more offers, and ping no more: a close frame is about to be appended, or the end has begun."""
        self._taking = False
        self._pinged = False
        self._room_changed()

    def offer(self, frames: bytes | memoryview) -> bool:
        """See `Sink.offer`."""
        return self._taking and self.write(frames)

    async def protocol_send(self, event: Event) -> None:
        """Do what hypercorn's protocols ask for."""
        if isinstance(event, RawData):
            if self.write(event.data):
                await trio.lowlevel.checkpoint()  # a client that pings and pings takes turns with the others
            else:
                await self.drain()
        elif isinstance(event, Closed):
            self.end()
            await self.protocol.handle(Closed())
        else:
            if isinstance(event, Updated):
                self._busy_at = None if event.idle else trio.current_time()
                self._has_asked = self._has_asked or not event.idle
                self._wake_reader()
            # It starts or stops the task that ends an idle connection. By then the answer is sent, and quart-trio cancels who
            # sent it: without the shield no connection would ever be ended for being idle. It waits for nobody.
            with trio.CancelScope(shield=True):
                await super().protocol_send(event)

    def _room_changed(self) -> None:
        if self._direct_writer is not None:
            self._direct_writer.direct = self._taking and not self._owed and not self._tls

    def _lost(self) -> None:
        """The client is gone, as a write has shown; the read loop finds out by itself and tells hypercorn."""
        self._forget()
        self.stop_taking()
        self.over_within(GONE_SECONDS)

    def _all_taken(self) -> None:
        if self._ending:
            self._half_close()

    def _half_close(self) -> None:
        if not self.owed:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def _shut(self) -> None:
        """Close the socket; whoever waits for it is freed."""
        self._gone = True
        self._forget()
        self.stop_taking()
        self._socket.close()

    # TLS

    async def _shake_hands(self) -> bool:
        try:
            with trio.fail_after(min(self.config.ssl_handshake_timeout, self.policy.request_seconds)):
                await self.stream.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return False
        transport = OwedTransport(self.stream.transport_stream, self._take_encrypted)
        self.stream.transport_stream = cast("trio.SocketStream", transport)
        return True

    # What hypercorn calls

    async def _read_data(self) -> None:
        if self.is_spare:
            self._requests.close_after_answer()
        try:
            while data := await self._receive():
                self._heard_at = trio.current_time()
                if not self._ending:
                    await self._requests.handle(RawData(data))
            await self._answer_the_last()
        finally:
            self.stop_taking()
            self._ending = True  # from here on nothing may be started in the nursery: it may be closing
        self.over_within(GONE_SECONDS if self._requests.is_busy else 0.0)
        await self._requests.handle(Closed())

    async def _receive(self) -> bytes:
        """Return what the client says next; b"" at its FIN, or where it is gone.

        Meanwhile requests that had to wait for the answer to the one before are read when their turn has come.
        """
        while self._requests.is_held:
            if self._requests.has_turn:
                await self._requests.go_on()
                continue
            full = self._requests.held_bytes >= HELD_BYTES
            if full and self._awaits_news:
                self.abort("too_large")  # nobody would notice its end behind all this
            try:
                with trio.CancelScope() as self._waiting:
                    if full:
                        await trio.sleep_forever()
                    return await self._receive_some()
            finally:
                self._waiting = None
        return await self._receive_some()

    async def _receive_some(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(MAX_RECV))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _answer_the_last(self) -> None:
        """The client has said all: let it have the answers to what it has asked for in whole, if they end by themselves."""
        while not (self._ending or self._awaits_news):
            if self._requests.is_held and self._requests.has_turn:
                await self._requests.go_on()
            elif self._requests.is_answering:
                with trio.CancelScope() as self._waiting:
                    await trio.sleep_forever()
                self._waiting = None
            else:
                return

    def _wake_reader(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    async def _close(self) -> None:
        self._shut()

    async def _idle_timeout(self) -> None:
        """End a connection that asks for nothing, or nothing more."""
        with trio.move_on_after(self.config.keep_alive_timeout):
            await self.context.terminated.wait()
            if not self._has_asked:
                await trio.sleep(FIRST_WORDS_SECONDS)
        if self._busy_at is not None:
            return  # a request came in the same instant, and whoever stops this task has not had a turn yet
        with trio.CancelScope(shield=True):
            await self._initiate_server_close()

    async def _initiate_server_close(self) -> None:
        await self.protocol.handle(Closed())
        self.end()

    @property
    def bare_socket(self) -> socket.socket:
        """The socket under trio's, which writes without a step in between."""
        return cast("_Wrapping", self._socket)._sock

    @property
    def _requests(self) -> Requests:
        return cast("Requests", self.protocol)


def awaiting_news(connection: object) -> AbstractContextManager[None]:
    """Return `connection.awaiting_news()`, if it is ours; another server has its own mind of a FIN."""
    return connection.awaiting_news() if isinstance(connection, ChatTCPServer) else nullcontext()


class _Wrapping(Protocol):
    """trio's socket, as it is inside."""

    _sock: socket.socket


def _peer(sock: trio.socket.SocketType) -> str:
    """Return the client's address, for log lines."""
    try:
        address = sock.getpeername()
    except OSError:  # gone before we looked
        return "?"
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"
