"""hypercorn's TCP connection, hardened against arbitrary clients.

hypercorn on trio lets one connection's error end the process, and shields its sends from cancellation without a time
limit. `install.py` puts `ChatTCPServer` in its place, also under the plain `hypercorn -k trio`.
`web/server/__init__.py` lists the names of hypercorn that it uses, why, and which test watches them.
"""

from __future__ import annotations

import socket
import struct
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Self, cast

import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.tcp_server import TCPServer

from ...delivery.records.frames import PING
from .heard_bytes import HeardBytes
from .idle import NO_TASK
from .owed_bytes import OwedBytes
from .policy import CONNECTION, policy_in
from .time_limits import REQUEST_SECONDS, Due, TimeLimits
from .tls import OwedTransport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypercorn.config import Config
    from hypercorn.trio.worker_context import TrioSingleTask, WorkerContext
    from hypercorn.typing import AppWrapper, LifespanState

LINGER_SECONDS = 0.5  # for the client to read our last bytes: closing at once resets a client that is still sending
SPARE_SECONDS = 5.0  # for a connection beyond the limit to ask for health, or be refused
GONE_SECONDS = 1.0  # for the app to end by itself once the client is gone

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s; drops what the kernel still buffers for a stuck client


class ChatTCPServer(HeardBytes, TCPServer):
    """One TCP connection.

    Attributes:
        output: the write half. Everything that hypercorn or we send goes through it, in order: nothing of ours before the
            101, no pong inside a message, nothing after a close frame.
        times: its time limits.
        peer: the client's address, for log lines.
        is_spare: whether it exceeds `limits.connections`: it may only ask for health, readiness and metrics.
    """

    def __init__(
        self, app: AppWrapper, config: Config, context: WorkerContext, state: LifespanState, stream: trio.SSLStream[trio.SocketStream]
    ) -> None:
        # hypercorn passes the same dict to all connections.
        TCPServer.__init__(self, app, config, context, {**state, CONNECTION: self}, stream)
        self.send_lock = cast("trio.Lock", None)  # 0.4 KiB; `protocol_send` is ours
        self.idle_task = cast("TrioSingleTask", NO_TASK)
        self.policy = policy_in(state)
        self._tls = isinstance(stream, trio.SSLStream)
        self._socket = stream.transport_stream.socket if self._tls else cast("trio.SocketStream", stream).socket
        HeardBytes.__init__(self)
        write_seconds = self.policy.limits.write_seconds
        encrypt = stream.send_all if self._tls else None
        self.output = OwedBytes(self._socket, self.policy.ready_sockets, self, write_seconds=write_seconds, encrypt=encrypt)
        self.times = TimeLimits()
        self.peer = _peer(self._socket)
        self.is_spare = False
        self._scope = trio.CancelScope()
        self._has_place = False  # it counts towards `limits.connections`

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    # Life and death

    async def run(self) -> None:
        """Serve until either side ends it. Raises nothing: an error is logged, and ends only this connection."""
        turn = self.policy.keepalive.watch(self)
        connections = self.policy.connections
        connections.count += 1
        self._has_place = True
        self.is_spare = connections.are_too_many and not self.policy.idle.make_room()  # a connection closed for room is no longer counted
        self.policy.shutdown.comes_with(self.context.terminated.wait)
        self._expect_request()
        if connections.are_far_too_many:
            self.abort("connections")
        elif self.is_spare:
            self.over_within(SPARE_SECONDS)
        try:
            with self._scope:
                try:
                    if not self.output.closed and (not self._tls or await self._shake_hands()):
                        await super().run()
                except* Exception as errors:  # noqa: BLE001 - the outer wall round a connection
                    self.policy.telemetry.connection_failed(peer=self.peer, error=errors)
        finally:
            self._shut()
            self.hold_nothing()
            self._give_place_back()
            self.policy.keepalive.unwatch(self, turn)
            self._untie()

    def _untie(self) -> None:
        """Release the references back to us, so that an ended connection is freed at once.

        Otherwise it is freed only by a full garbage collection, which must be rare: with 5,000
        clients that blocks the loop for half a second.
        """
        self.output.untie()
        self.policy.idle.leave(self)
        self.state.clear()
        for name in ("protocol", "_task_group", "stream"):  # some are missing if it ended early
            self.__dict__.pop(name, None)

    def abort(self, reason: str | None = None) -> None:
        """End it now: close the socket, and cancel its tasks. Does not wait for hypercorn to notice.

        Args:
            reason: for the operator; None if it is reported elsewhere.
        """
        if self.output.closed:
            return
        if reason is not None:
            self.policy.telemetry.connection_aborted(peer=self.peer, reason=reason)
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._shut()
        self._scope.cancel()

    def give_way(self) -> None:
        """Close it now, to make room for a new connection (`Idle`)."""
        self.policy.telemetry.connection_aborted(peer=self.peer, reason="idle")
        self._give_place_back()
        self._shut()
        self._scope.cancel()

    def _give_place_back(self) -> None:
        if self._has_place:
            self._has_place = False
            self.policy.connections.count -= 1

    def end(self) -> None:
        """End it after everything is sent: half-close, give the client a moment to read and close, then close."""
        if not self.output.ending:
            self.times.expect_nothing()
            self.policy.idle.leave(self)
            self.over_within(LINGER_SECONDS)
            self.output.finish()
            self._wake_reader()

    def lost(self) -> None:
        """Note that a write failed, so the client is gone (`Owner`); the read loop notices by itself and ends the connection."""
        self.times.pinged = False
        self.over_within(GONE_SECONDS)

    def over_within(self, seconds: float) -> None:
        """Cancel all of this connection's tasks after some seconds, if they have not ended."""
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + seconds)

    def _shut(self) -> None:
        """Close the socket, and wake the tasks that wait for it."""
        self.output.close()
        self.times.pinged = False
        self.policy.ready_sockets.forget(self._socket.fileno())
        self._socket.close()

    def check_alive(self, now: float) -> None:
        """Ping it or end it, if that is due (`Pingable`)."""
        output, limits = self.output, self.policy.limits
        if output.closed or output.ending:
            return
        if output.takes_nothing(now):
            self.abort("write_seconds")
            return
        due = self.times.due(now, limits, acknowledged_at=output.room_at, request_seconds=self.policy.request_seconds)
        if due is Due.PONG:
            self.abort("pong_seconds")
        elif due is Due.PING:
            # Behind owed bytes a ping adds nothing to the write limit.
            if (output.owed or not output.write(PING)) and not output.draining:
                self._task_group.spawn(output.drain)
        elif due is Due.BODY and self._requests.waits_for_body:
            self.abort("request_seconds")
        elif due is Due.REQUEST:
            self.end()

    def stood_still(self, seconds: float) -> None:
        """Exclude the last seconds from all limits (`Pingable`)."""
        self.times.stood_still(seconds)
        self.output.stood_still(seconds)

    @contextmanager
    def awaiting_news(self) -> Iterator[None]:
        """While the block runs, the client's FIN ends its request; otherwise it gets its answer even after a FIN.

        A client may close its side and wait for the answer (RFC 9112 section 9.6). But if the answer never ends, the FIN is
        the only sign that the client is gone.
        """
        self._awaits_news = True
        self._wake_reader()
        try:
            yield
        finally:
            self._awaits_news = False

    def became_websocket(self) -> None:
        """Note that its WebSocket is accepted and the 101 sent: from now on it is pinged."""
        self.times.begin_pings(self.policy.limits)
        self._requests.forget_http()
        self.state.clear()

    def stop_taking(self) -> None:
        """Stop accepting offers and pinging: a close frame is about to be appended."""
        self.output.stop_taking()
        self.times.pinged = False

    # What hypercorn calls

    async def protocol_send(self, event: Event) -> None:
        """Do what hypercorn's protocols ask for."""
        if isinstance(event, RawData):
            if self.output.write(event.data):
                await trio.lowlevel.checkpoint()  # a client that pings without pause must take turns with the others
            else:
                await self.output.drain()
        elif isinstance(event, Closed):
            self.end()
            await self.protocol.handle(Closed())
        elif isinstance(event, Updated):
            if event.idle:
                self._rest()
            else:
                self.times.begin_request()
                self.policy.idle.leave(self)
            self._wake_reader()

    async def _read_data(self) -> None:
        if self.is_spare:
            self._requests.close_after_answer()
        try:
            while data := await self._receive():
                self.times.heard_at = trio.current_time()
                if not self.output.ending:
                    await self._requests.handle(RawData(data))
                    if self.policy.idle.rests(self) and self._requests.has_begun:
                        self._expect_request()
                del data  # else each idle connection would keep what it has said last: the head of its request, with a token in it
            await self._answer_the_last()
        finally:
            self.times.pinged = False
            self.output.end()  # from here on start nothing in the nursery: it may be closing
        self.over_within(GONE_SECONDS if self._requests.is_busy else 0.0)
        await self._requests.handle(Closed())

    async def _close(self) -> None:
        self._shut()

    def _expect_request(self) -> None:
        """Note that it waits for a request: the first one, or the rest of one."""
        self.times.expect_request()
        self.policy.idle.expect(self)

    def _rest(self) -> None:
        """Note that a request has been answered."""
        if self._requests.has_begun:
            self._expect_request()
        else:
            self.times.expect_request(self.policy.limits.idle_seconds)
            self.policy.idle.rest(self)

    async def _shake_hands(self) -> bool:
        """Do the TLS handshake, within its time limit."""
        transport = OwedTransport(self.stream.transport_stream, self.receive_from_socket, self.output.take_encrypted)
        self.stream.transport_stream = cast("trio.SocketStream", transport)
        try:
            with trio.fail_after(min(self.config.ssl_handshake_timeout, REQUEST_SECONDS)):
                await self.stream.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return False
        self._expect_request()
        return True


def awaiting_news(connection: object) -> AbstractContextManager[None]:
    """Return `connection.awaiting_news()` if it is our connection; another server handles a FIN in its own way."""
    return connection.awaiting_news() if isinstance(connection, ChatTCPServer) else nullcontext()


def _peer(sock: trio.socket.SocketType) -> str:
    """Return the client's address, for log lines."""
    try:
        address = sock.getpeername()
    except OSError:  # gone before we looked
        return "?"
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"
