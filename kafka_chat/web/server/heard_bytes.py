"""Reads from a client when its connection has its turn, and no further than the next unanswered request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import trio

if TYPE_CHECKING:
    import socket

    from hypercorn.events import Event
    from hypercorn.protocol import ProtocolWrapper

    from .policy import ConnectionPolicy
    from .time_limits import TimeLimits

MOST_BYTES = 64 * 1024  # read at once
HELD_BYTES = MOST_BYTES  # of requests behind the one that is being answered; no more is read until it is
SMALL_BYTES = 4096  # that a client may always say, as most requests are: the cost of a connection has them in it (`CONNECTION_BYTES`)


class Requests(Protocol):
    """What reads a connection's requests: `ChatH11Protocol`.

    Attributes:
        is_held: there is more behind the request that is being answered; `go_on` reads it once `has_turn`.
    """

    is_held: bool

    @property
    def held_bytes(self) -> int:
        """How much has come, and is not read yet."""

    @property
    def has_turn(self) -> bool:
        """Whether the request before has been answered, so that the next one may be read."""

    @property
    def is_busy(self) -> bool:
        """Whether the app is at work, for a request or a WebSocket."""

    @property
    def is_answering(self) -> bool:
        """Whether a request that came in whole is being answered; a WebSocket is none."""

    @property
    def waits_for_body(self) -> bool:
        """Whether a request is there whose body is not."""

    def close_after_answer(self) -> None:
        """Say `Connection: close` with the next answer."""

    def forget_http(self) -> None:
        """Drop what only requests need."""

    async def go_on(self) -> None:
        """Read what is held back, as far as it has its turn."""

    async def handle(self, event: Event) -> None:
        """Take what came from the client, or its end."""


class HeardBytes:
    """The reading half of a connection."""

    policy: ConnectionPolicy
    protocol: ProtocolWrapper
    stream: trio.SSLStream[trio.SocketStream]
    _socket: trio.socket.SocketType
    _tls: bool
    _ending: bool
    times: TimeLimits

    def __init__(self) -> None:
        self._held = 0  # bytes of requests and messages that are counted now
        self._awaits_news = False  # what is being answered ends with its client
        self._waiting: trio.CancelScope | None = None  # the read loop, where it waits for something else than bytes, too

    def abort(self, reason: str | None = None) -> None:
        """End the connection now; see `ChatTCPServer`."""
        raise NotImplementedError

    def hold(self, size: int) -> bool:
        """Count `size` bytes more of what the client has said that is not whole, or not taken by the app yet; fewer where it is negative.

        Returns:
            False where all clients together have said too much of that, and this one much: then it has to end.
        """
        self._held += size
        self.policy.held.owe(size)
        return size <= 0 or self._held <= SMALL_BYTES or not self.policy.held.owes_too_much

    def hold_nothing(self) -> None:
        """Count nothing any more: it is over."""
        self.hold(-self._held)

    @property
    def bare_socket(self) -> socket.socket:
        """The socket under trio's, which writes without a step in between."""
        return cast("_Wrapping", self._socket)._sock

    @property
    def _requests(self) -> Requests:
        return cast("Requests", self.protocol)

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
            return bytes(await self.stream.receive_some(MOST_BYTES)) if self._tls else await self.receive_from_socket(MOST_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def receive_from_socket(self, most: int) -> bytes:
        """Read when it is this connection's turn.

        Raises:
            trio.BrokenResourceError: it was reset.
            trio.ClosedResourceError: it was closed by us.
        """
        while True:
            await self.policy.ready_sockets.wait_readable(self._socket, is_new=not self.times.heard_at)
            try:
                return self.bare_socket.recv(most)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error

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


class _Wrapping(Protocol):
    """trio's socket, as it is inside."""

    _sock: socket.socket
