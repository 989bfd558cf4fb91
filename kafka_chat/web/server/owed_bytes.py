"""Writes a connection's bytes in the order in which they were decided, and counts what the socket has not taken yet."""

from __future__ import annotations

import os
import socket as sockets
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PIECES = 64  # of what is owed, written by one system call; far below IOV_MAX


class Room(Protocol):
    """Waits until sockets are writable: `ReadySockets`."""

    async def wait_writable(self, socket: trio.socket.SocketType) -> None:
        """Wait until this one does, or is at its end.

        Raises:
            trio.BrokenResourceError: it cannot be waited for.
            trio.ClosedResourceError: it was closed.
        """


class Owner(Protocol):
    """The owner of the bytes: a connection."""

    def lost(self) -> None:
        """A write has shown that the client is gone."""

    def abort(self, reason: str | None = None) -> None:
        """End it now; `reason` is for the operator."""


class DirectWriter(Protocol):
    """Writes offers to the socket itself while nothing is owed.

    Attributes:
        direct: whether that is so now.
    """

    direct: bool


class OwedBytes:
    """The writing half of a connection.

    Bytes of the server or a sink are first appended to what is owed, in the same synchronous step in which they were decided; then
    what is owed is written, from the front, without waiting (`write`) or with (`drain`). A write's count is known exactly, so a
    cancelled `drain` tears nothing: what is owed stays owed.

    Args:
        socket: does not block.
        room: says when it takes something again.
        owner: is told of the client's end; `untie` forgets it.
        write_seconds: for TLS to encrypt, which waits for nobody.
        encrypt: of TLS: turns bytes into those for the socket, which it hands to `take_encrypted`; None in plain.

    Attributes:
        taking: whether offers are taken: from `start_taking` to the first sign of the end.
        closed: nothing is written any more.
        room_at: when a socket that was full had room, so that its client has acknowledged something: it is alive.
    """

    # Each connection has one: slots, and nothing that an idle one does not need.
    __slots__ = (
        "_drain_lock",
        "_encrypt",
        "_finishing",
        "_moved_at",
        "_owed",
        "_owed_bytes",
        "_owner",
        "_plain",
        "_plain_bytes",
        "_room",
        "_socket",
        "_write_seconds",
        "_writer",
        "_written",
        "closed",
        "room_at",
        "taking",
    )

    def __init__(
        self,
        socket: trio.socket.SocketType,
        room: Room,
        owner: Owner,
        *,
        write_seconds: float,
        encrypt: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        self.taking = False
        self.closed = False
        self.room_at = 0.0
        self._socket = socket
        self._room = room
        self._owner: Owner | None = owner
        self._write_seconds = write_seconds
        self._encrypt = encrypt
        self._writer: DirectWriter | None = None
        self._finishing = False
        self._owed: list[bytes | memoryview] = []
        self._owed_bytes = 0
        self._plain: list[bytes | memoryview] | None = None if encrypt is None else []  # what is owed, and not yet encrypted
        self._plain_bytes = 0
        self._written = 0  # bytes of those that had to be owed
        self._moved_at = 0.0  # when the socket last took of them, or they began to be owed
        self._drain_lock: trio.Lock | None = None  # 0.4 KiB, and most connections never have to wait

    @property
    def owed(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._owed_bytes + self._plain_bytes

    # Offers

    def start_taking(self, writer: DirectWriter) -> None:
        """Take offers, unless the end has begun.

        Args:
            writer: is told from now on whether it may write to the socket itself.
        """
        self._writer = writer
        self.taking = not (self._finishing or self.closed)
        self._room_changed()

    def stop_taking(self) -> None:
        """Take no more offers: something is about to be written behind which none may come, or the end has begun."""
        self.taking = False
        self._room_changed()

    def offer(self, data: bytes | memoryview) -> bool:
        """Write `data`, if offers are taken; returns what `write` does."""
        return self.taking and self.write(data)

    # Writing

    def write(self, data: bytes | memoryview) -> bool:
        """Owe `data`, and write of what is owed what the socket takes at once.

        Returns:
            True: nothing is owed. False: `drain` has to write the rest, or the connection is closed.
        """
        if self._owed or self._encrypt is not None or self.closed:
            return self._write_behind(data)
        # The descriptor is asked for each time: a remembered one may be another client's by now.
        try:
            sent = os.write(self._socket.fileno(), data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose()
            return False
        if sent == len(data):
            return True
        self.owe(memoryview(data)[sent:])
        return False

    def owe(self, data: bytes | memoryview) -> None:
        """Owe what a socket that owed nothing did not take."""
        if not self._owed:
            self._moved_at = trio.current_time()
        self._owed.append(data)
        self._owed_bytes += len(data)
        self._room_changed()

    async def drain(self) -> None:
        """Write what is owed at this moment, or see the connection closed.

        A client that takes nothing for too long is aborted, see `takes_nothing`; not by a deadline here: those of all clients behind
        a cable that was cut would be over in one and the same round of the loop.
        """
        if self._drain_lock is None:
            self._drain_lock = trio.Lock()
        async with self._drain_lock:
            if self._plain:
                await self._encrypt_all(self._plain)
            target = self._written + self._owed_bytes  # what others add meanwhile is theirs to wait for
            while self._owed and self._written < target:
                try:
                    await self._room.wait_writable(self._socket)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                self.room_at = trio.current_time()
                self._push()

    @property
    def draining(self) -> bool:
        """Whether somebody waits for what is owed to be written."""
        return self._drain_lock is not None and self._drain_lock.locked()

    def takes_nothing(self, now: float) -> bool:
        """Whether the socket has taken nothing of what is owed for `write_seconds`."""
        return bool(self._owed) and now - self._moved_at >= self._write_seconds

    def stood_still(self, seconds: float) -> None:
        """Do not count the last so many seconds: the process stood still in them."""
        now = trio.current_time()
        self._moved_at = min(self._moved_at + seconds, now)
        self.room_at = min(self.room_at + seconds, now)

    # The end

    def finish(self) -> None:
        """Take no more offers, and half-close the socket once all that is owed is written."""
        self.stop_taking()
        self._finishing = True
        self._half_close_if_done()

    def close(self) -> None:
        """Owe nothing, and write nothing any more. The socket is its owner's to close."""
        self.closed = True
        self._forget()
        self.stop_taking()

    def untie(self) -> None:
        """Release whatever refers back to it, for it is over."""
        self._owner = self._writer = self._encrypt = None

    # TLS

    def take_encrypted(self, data: bytes) -> None:
        """Take what TLS has to send, and write what the socket takes at once."""
        if not self.closed:
            self.owe(data)
            self._push()

    async def _encrypt_all(self, plain: list[bytes | memoryview]) -> None:
        """Turn all that is owed in plain into bytes for the socket.

        Shielded, for a cancelled `send_all` leaves a TLS stream broken. It does not wait for the client: the transport
        takes everything at once.
        """
        data = b"".join(plain)
        plain.clear()
        encrypt, owner = self._encrypt, self._owner
        if encrypt is None or owner is None:
            return
        with trio.move_on_after(self._write_seconds, shield=True) as scope:
            try:
                await encrypt(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._lose()
            else:
                self._plain_bytes = sum(map(len, plain))  # what was written meanwhile
                self._half_close_if_done()
        if scope.cancelled_caught:
            owner.abort("write_seconds")

    # Behind what is owed

    def _write_behind(self, data: bytes | memoryview) -> bool:
        """`write`, where it is not as simple as one system call."""
        if self.closed:
            return False
        if self._plain is not None:
            self._plain.append(data)
            self._plain_bytes += len(data)
            return False
        self.owe(data)
        return self._push()

    def _push(self) -> bool:
        """Write of what is owed what the socket takes at once; returns whether that was all."""
        while self._owed:
            try:
                sent = os.writev(self._socket.fileno(), self._owed[:PIECES])
            except BlockingIOError:
                return False
            except OSError:
                self._lose()
                return False
            self._took(sent)
        self._half_close_if_done()
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
            self._room_changed()

    def _half_close_if_done(self) -> None:
        if self._finishing and not self.owed:
            with suppress(OSError):
                self._socket.shutdown(sockets.SHUT_WR)

    def _lose(self) -> None:
        self._forget()
        self.stop_taking()
        if self._owner is not None:
            self._owner.lost()

    def _forget(self) -> None:
        self._owed.clear()
        self._owed_bytes = 0
        if self._plain is not None:
            self._plain.clear()
        self._plain_bytes = 0

    def _room_changed(self) -> None:
        if self._writer is not None:
            self._writer.direct = self.taking and not self._owed and self._encrypt is None
