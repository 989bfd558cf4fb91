"""hypercorn's TCP connection, made fit to be left alone with strangers.

hypercorn on trio lets one connection's error end the process, shields its sends from cancellation, and sets them no
limit. `ChatTCPServer` is put in its place by `install.py`, so it is there under the plain `hypercorn -k trio`, too.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from random import uniform
from typing import TYPE_CHECKING, Protocol, Self, cast

import h11
import trio
from h2.exceptions import ProtocolError
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11WSConnection
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import EventWrapper

from ...delivery.records.frames import PING
from .policy import CONNECTION, policy_in
from .tls import OwedTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config
    from hypercorn.protocol.h11 import H11Protocol
    from hypercorn.trio.worker_context import TrioSingleTask, WorkerContext
    from hypercorn.typing import AppWrapper, LifespanState

LINGER_SECONDS = 0.5  # for the client to read our last words: closing at once resets a client that is still sending
FIRST_WORDS_SECONDS = 0.5  # for who has just connected when the shutdown begins, and was taken in, to say what for
GONE_SECONDS = 1.0  # for the app to end by itself once the client is gone
_READABLE = EventWrapper()  # for all WebSockets: only pipelined requests are ever held back
PIECES = 64  # of what is owed, written by one system call; far below IOV_MAX

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s; what the kernel holds for a stuck client is dropped, too


class DirectWriter(Protocol):
    """Who writes offers to the socket itself, as long as nothing is owed.

    Attributes:
        direct: whether that is so now; kept by the connection.
    """

    direct: bool


class ChatTCPServer(TCPServer):
    """One TCP connection, and the bytes that its socket has not taken yet.

    Whoever has something to say, hypercorn or we, first appends it to what is owed, in the same synchronous step in
    which it was decided; then what is owed is written, from the front, without waiting (`write`) or with (`drain`). So the
    order is that of the decisions: nothing of ours before the 101, no pong inside a message, nothing behind a close frame.
    A write's count is known exactly, so a cancelled `drain` tears nothing: what is owed stays owed.
    """

    def __init__(
        self, app: AppWrapper, config: Config, context: WorkerContext, state: LifespanState, stream: trio.SSLStream[trio.SocketStream]
    ) -> None:
        # hypercorn gives all connections one and the same dict.
        super().__init__(app, config, context, {**state, CONNECTION: self}, stream)
        self.send_lock = cast("trio.Lock", None)  # 0.4 KiB, and most connections never have to wait: see `_drain_lock`
        self.policy = policy_in(state)
        self._tls = isinstance(stream, trio.SSLStream)
        self._socket: trio.socket.SocketType = stream.transport_stream.socket if self._tls else cast("trio.SocketStream", stream).socket
        self.peer = _peer(self._socket)
        self._scope = trio.CancelScope()
        self._direct_writer: DirectWriter | None = None
        self._taking = False  # offers; from the accept to the first sign of the end
        self._ending = False
        self._gone = False
        self._owed: list[bytes | memoryview] = []
        self._owed_bytes = 0
        self._plain: list[bytes | memoryview] = []  # under TLS: what is owed, and not yet encrypted
        self._plain_bytes = 0
        self._written = 0  # bytes of those that had to be owed
        self._moved_at = 0.0  # when the socket last took of them, or they began to be owed
        self._heard_at = 0.0
        self._ping_at = 0.0
        self._busy_at: float | None = None  # when the request that is being served began
        self._has_asked = False  # for anything
        self._pinged = False  # it is a WebSocket, and no close frame has been appended

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    # Life and death

    async def run(self) -> None:
        """Serve until either side ends it. Raises nothing: an error is told, and ends this connection alone."""
        turn = self.policy.keepalive.watch(self)
        try:
            with self._scope:
                try:
                    if not self._tls or await self._shake_hands():
                        await super().run()
                except* Exception as errors:  # noqa: BLE001 - the outer wall round a connection
                    self.policy.telemetry.connection_failed(peer=self.peer, error=errors)
        finally:
            self._shut()
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
                if (self.owed or not self.write(self._ping())) and not self._drain_lock.locked():
                    self._task_group.spawn(self.drain)
        elif self._busy_at is not None and now - self._busy_at >= self.policy.request_seconds and self._waits_for_request():
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
        protocol = self.http11
        if protocol is not None and isinstance(protocol.connection, H11WSConnection):
            self._forget_http(protocol)

    def _forget_http(self, protocol: H11Protocol) -> None:
        """Let go of what only requests need: there is none behind a WebSocket, and it is a sixth of what an idle one holds."""
        protocol.connection.h11_connection = cast("h11.Connection", None)  # type: ignore[union-attr]  # it is an H11WSConnection
        protocol.can_read = _READABLE
        self.idle_task = cast("TrioSingleTask", None)
        self.state.clear()

    def _ping(self) -> bytes:
        protocol = self.protocol.protocol
        if not isinstance(protocol, H2Protocol):
            return PING
        with suppress(ProtocolError):  # its end has begun
            protocol.connection.ping(bytes(8))
        return protocol.connection.data_to_send()

    # Writing

    @property
    def owed(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._owed_bytes + self._plain_bytes

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
        self._update_direct()

    def stop_taking(self) -> None:
        """Take no more offers, and ping no more: a close frame is about to be appended, or the end has begun."""
        self._taking = False
        self._pinged = False
        self._update_direct()

    def offer(self, frames: bytes | memoryview) -> bool:
        """See `Sink.offer`."""
        return self._taking and self.write(frames)

    def owe(self, data: bytes | memoryview) -> None:
        """Owe what a socket that owed nothing did not take."""
        if not self._owed:
            self._moved_at = trio.current_time()
        self._owed.append(data)
        self._owed_bytes += len(data)
        self._update_direct()

    def write(self, data: bytes | memoryview) -> bool:
        """Owe `data`, and write of what is owed what the socket takes at once.

        Returns:
            True: nothing is owed. False: `drain` has to write the rest, or the connection is closed.
        """
        if self._owed or self._tls or self._gone:
            return self._write_behind(data)
        # The descriptor is asked for each time: a remembered one may be another client's by now.
        try:
            sent = os.write(self._socket.fileno(), data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost()
            return False
        if sent == len(data):
            return True
        self.owe(memoryview(data)[sent:])
        return False

    async def drain(self) -> None:
        """Write what is owed at this moment, or see the connection closed.

        A client that takes nothing for `limits.write_seconds` is aborted.
        """
        async with self._drain_lock:
            if self._plain:
                await self._encrypt()
            target = self._written + self._owed_bytes  # what others add meanwhile is theirs to wait for
            with trio.CancelScope() as scope:
                while self._owed and self._written < target:
                    scope.deadline = self._moved_at + self.policy.limits.write_seconds
                    try:
                        await trio.lowlevel.wait_writable(self._socket)
                    except trio.ClosedResourceError:
                        return
                    # A socket that was full has room, so the client acknowledged something: it is alive.
                    self._heard_at = trio.current_time()
                    self._push()
            if scope.cancelled_caught:
                self.abort("write_seconds")

    @property
    def _drain_lock(self) -> trio.Lock:
        if self.send_lock is None:
            self.send_lock = trio.Lock()
        return self.send_lock

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
            # It starts or stops the task that ends an idle connection. By then the answer is sent, and quart-trio cancels who
            # sent it: without the shield no connection would ever be ended for being idle. It waits for nobody.
            with trio.CancelScope(shield=True):
                await super().protocol_send(event)

    def _write_behind(self, data: bytes | memoryview) -> bool:
        """`write`, where it is not as simple as one system call."""
        if self._gone:
            return False
        if self._tls:
            self._plain.append(data)
            self._plain_bytes += len(data)
            return False
        self.owe(data)
        return self._push()

    def _update_direct(self) -> None:
        if self._direct_writer is not None:
            self._direct_writer.direct = self._taking and not self._owed and not self._tls

    def _push(self) -> bool:
        """Write of what is owed what the socket takes at once; returns whether that was all."""
        while self._owed:
            try:
                sent = os.writev(self._socket.fileno(), self._owed[:PIECES])
            except BlockingIOError:
                return False
            except OSError:
                self._lost()
                return False
            self._took(sent)
        if self._ending:
            self._half_close()
        return True

    def _took(self, sent: int) -> None:
        """Forget the first `sent` bytes of what is owed."""
        self._written += sent
        self._owed_bytes -= sent
        self._moved_at = trio.current_time()
        whole = 0
        while whole < len(self._owed) and sent >= len(self._owed[whole]):
            sent -= len(self._owed[whole])
            whole += 1
        del self._owed[:whole]
        if sent:
            self._owed[0] = memoryview(self._owed[0])[sent:]
        else:
            self._update_direct()

    def _lost(self) -> None:
        """The client is gone, as a write has shown; the read loop finds out by itself and tells hypercorn."""
        self._forget()
        self.over_within(GONE_SECONDS)

    def _forget(self) -> None:
        self._owed.clear()
        self._owed_bytes = 0
        self._plain.clear()
        self._plain_bytes = 0
        self.stop_taking()

    def _half_close(self) -> None:
        if not self.owed:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def _shut(self) -> None:
        """Close the socket; whoever waits for it is freed."""
        self._gone = True
        self._forget()
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

    def _take_encrypted(self, data: bytes) -> None:
        if not self._gone:
            self.owe(data)
            self._push()

    async def _encrypt(self) -> None:
        """Turn all that is owed in plain into bytes for the socket.

        Shielded, for a cancelled `send_all` leaves a TLS stream broken. It does not wait for the client: the transport
        takes everything at once.
        """
        data = b"".join(self._plain)
        self._plain.clear()
        with trio.move_on_after(self.policy.limits.write_seconds, shield=True) as scope:
            try:
                await self.stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._lost()
            else:
                self._plain_bytes = sum(map(len, self._plain))
        if scope.cancelled_caught:
            self.abort("write_seconds")

    # What hypercorn calls

    async def _read_data(self) -> None:
        try:
            while True:
                try:
                    data = await self.stream.receive_some(MAX_RECV)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    break
                if not data:
                    break
                self._heard_at = trio.current_time()
                if not self._ending:
                    await self.protocol.handle(RawData(bytes(data)))
        finally:
            self.stop_taking()
            self._ending = True  # from here on nothing may be started in the nursery: it may be closing
        self.over_within(GONE_SECONDS)
        await self.protocol.handle(Closed())

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

    def _waits_for_request(self) -> bool:
        protocol = self.protocol.protocol
        if isinstance(protocol, H2Protocol):
            return protocol.idle
        return isinstance(protocol.connection, h11.Connection) and protocol.connection.their_state is h11.SEND_BODY

    @property
    def bare_socket(self) -> socket.socket:
        """The socket under trio's, which writes without a step in between."""
        return cast("_Wrapping", self._socket)._sock

    @property
    def http11(self) -> H11Protocol | None:
        """The protocol, if it is HTTP/1.1, where a WebSocket has the connection to itself."""
        protocol = self.protocol.protocol
        return None if isinstance(protocol, H2Protocol) else protocol


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
