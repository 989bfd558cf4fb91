"""Reads from a client when it is its connection's turn, and no further than the next unanswered request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import trio

if TYPE_CHECKING:
    import socket

    from hypercorn.events import Event
    from hypercorn.protocol import ProtocolWrapper

    from .owed_bytes import OwedBytes
    from .policy import ConnectionPolicy
    from .time_limits import TimeLimits

MOST_BYTES = 64 * 1024  # read at once
HELD_BYTES = MOST_BYTES  # pipelined requests held while one is being answered; reading stops there
SMALL_BYTES = 4096  # always accepted, enough for most requests; part of a connection's cost (`CONNECTION_BYTES`)


class Requests(Protocol):
    """The parser of a connection's requests: `ChatH11Protocol`.

    Attributes:
        is_held: whether bytes after the current request are held back; `go_on` reads them once `has_turn`.
    """

    is_held: bool

    @property
    def held_bytes(self) -> int:
        """How many bytes have arrived and are not parsed yet."""

    @property
    def has_begun(self) -> bool:
        """Whether a part of the next request has arrived; an empty line is none."""

    @property
    def has_turn(self) -> bool:
        """Whether the previous request has been answered, so that the next one may be read."""

    @property
    def is_busy(self) -> bool:
        """Whether the app is running, for a request or a WebSocket."""

    @property
    def is_answering(self) -> bool:
        """Whether a complete request is being answered; false for a WebSocket."""

    @property
    def waits_for_body(self) -> bool:
        """Whether a request's head has come, and its body is incomplete."""

    def close_after_answer(self) -> None:
        """Send `Connection: close` with the next answer."""

    def forget_http(self) -> None:
        """Free what only requests need."""

    async def go_on(self) -> None:
        """Parse the held bytes, up to the next request that must wait."""

    async def handle(self, event: Event) -> None:
        """Handle bytes from the client, or its end."""


class HeardBytes:
    """The read half of a connection."""

    policy: ConnectionPolicy
    protocol: ProtocolWrapper
    stream: trio.SSLStream[trio.SocketStream]
    _socket: trio.socket.SocketType
    _tls: bool
    output: OwedBytes
    times: TimeLimits

    def __init__(self) -> None:
        self._held = 0  # bytes of requests and messages counted at present
        self._awaits_news = False  # the current answer ends with its client
        self._waiting: trio.CancelScope | None = None  # of the read loop, while it waits for something besides bytes

    def abort(self, reason: str | None = None) -> None:
        """End the connection now; `ChatTCPServer` does."""
        raise NotImplementedError

    def hold(self, size: int) -> bool:
        """Count `size` more bytes (negative: fewer) of incomplete requests and messages, or of complete ones that the app has not taken.

        Returns:
            False if all clients together hold too many bytes, and this one many of them: then it must end.
        """
        self._held += size
        self.policy.held.owe(size)
        return size <= 0 or self._held <= SMALL_BYTES or not self.policy.held.owes_too_much

    def hold_nothing(self) -> None:
        """Subtract everything counted for this connection: it has ended."""
        self.hold(-self._held)

    @property
    def bare_socket(self) -> socket.socket:
        """The plain socket under trio's, which writes synchronously."""
        return cast("_Wrapping", self._socket)._sock

    @property
    def _requests(self) -> Requests:
        return cast("Requests", self.protocol)

    async def _receive(self) -> bytes:
        """Return the next bytes of the client; b"" at its FIN, or if it is gone.

        Meanwhile, parse held requests once the previous one is answered.
        """
        while self._requests.is_held:
            if self._requests.has_turn:
                await self._requests.go_on()
                continue
            full = self._requests.held_bytes >= HELD_BYTES
            if full and self._awaits_news:
                self.abort("too_large")  # its FIN would go unnoticed behind these bytes
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
        """Read when it is this connection's turn (`ReadySockets`).

        Raises:
            trio.BrokenResourceError: the client reset it.
            trio.ClosedResourceError: we closed it.
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
        """After the client's FIN, answer its complete requests whose answers end by themselves."""
        while not (self.output.ending or self._awaits_news):
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
    """The private part of trio's socket."""

    _sock: socket.socket
