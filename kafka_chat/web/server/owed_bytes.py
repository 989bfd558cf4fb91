"""Writes a connection's bytes in order, and counts those that the socket has not taken yet."""

from __future__ import annotations

import os
import socket as sockets
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PIECES = 64  # of the owed bytes in one system call; far below IOV_MAX


class Room(Protocol):
    """Waits until a socket is writable: `ReadySockets`."""

    async def wait_writable(self, socket: trio.socket.SocketType) -> None:
        """Wait until `socket` is writable or broken.

        Raises:
            trio.BrokenResourceError: the system cannot wait for it.
            trio.ClosedResourceError: it was closed.
        """


class Owner(Protocol):
    """The connection that owns the bytes."""

    def lost(self) -> None:
        """Note that a write failed, so the client is gone."""

    def abort(self, reason: str | None = None) -> None:
        """End it now; `reason` is for the operator."""


class DirectWriter(Protocol):
    """Writes offers directly to the socket while nothing is owed.

    Attributes:
        direct: whether it may do so now; set by `OwedBytes`.
    """

    direct: bool


class OwedBytes:
    """The write half of a connection.

    The server or a sink appends bytes to the queue of owed bytes in the same synchronous step in which it decides to send them. The
    queue is then written from the front, without waiting (`write`) or with (`drain`). The count of each write is exact, so a
    cancelled `drain` leaves no half frame: what is not written stays owed.

    Args:
        socket: a non-blocking socket.
        room: waits until the socket is writable.
        owner: its `lost` is called when the client is gone; `untie` releases it.
        write_seconds: how long the socket may take nothing of what is owed.
        encrypt: for TLS: encrypts bytes and passes the result to `take_encrypted`; None without TLS.

    Attributes:
        taking: whether offers are accepted: from `start_taking` to the first sign of the end.
        ending: whether the connection has begun to end, so that offers are never accepted again.
        closed: whether nothing is written any more.
        room_at: when a full socket last had room again: its client has acknowledged something, so it is alive.
    """

    # There is one for each connection, so: slots, and nothing that an idle connection does not need.
    __slots__ = (
        "_drain_lock",
        "_encrypt",
        "_half_closes",
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
        "ending",
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
        self.ending = False
        self.closed = False
        self.room_at = 0.0
        self._socket = socket
        self._room = room
        self._owner: Owner | None = owner
        self._write_seconds = write_seconds
        self._encrypt = encrypt
        self._writer: DirectWriter | None = None
        self._half_closes = False  # once everything owed is written
        self._owed: list[bytes | memoryview] = []
        self._owed_bytes = 0
        self._plain: list[bytes | memoryview] | None = None if encrypt is None else []  # owed, and not yet encrypted
        self._plain_bytes = 0
        self._written = 0  # owed bytes written so far
        self._moved_at = 0.0  # when the socket last took owed bytes, or the first became owed
        self._drain_lock: trio.Lock | None = None  # 0.4 KiB; most connections never wait

    @property
    def owed(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._owed_bytes + self._plain_bytes

    # Offers

    def start_taking(self, writer: DirectWriter) -> None:
        """Accept offers, unless the end has begun.

        Args:
            writer: its `direct` says from now on whether it may write to the socket.
        """
        self._writer = writer
        self.taking = not (self.ending or self.closed)
        self._room_changed()

    def stop_taking(self) -> None:
        """Accept no more offers: nothing may follow what is written next, or the end has begun."""
        self.taking = False
        self._room_changed()

    def offer(self, data: bytes | memoryview) -> bool:
        """Write `data` if offers are accepted; returns what `write` does."""
        return self.taking and self.write(data)

    # Writing

    def write(self, data: bytes | memoryview) -> bool:
        """Append `data` to the owed bytes, and write what the socket takes at once.

        Returns:
            True: nothing is owed. False: `drain` must write the rest, or the connection is closed.
        """
        if self._owed or self._encrypt is not None or self.closed:
            return self._write_behind(data)
        # `fileno()` each time: a remembered descriptor may be another client's by now.
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
        """Owe the rest of a direct write, which the socket did not take; nothing may be owed before."""
        if not self._owed:
            self._moved_at = trio.current_time()
        self._owed.append(data)
        self._owed_bytes += len(data)
        self._room_changed()

    async def drain(self) -> None:
        """Write the bytes that are owed now; returns early if the connection is closed.

        The keepalive aborts a client that takes nothing for too long (`takes_nothing`). There is no deadline here: when a cable is
        cut, the deadlines of all clients behind it would expire in the same iteration of the loop.
        """
        if self._drain_lock is None:
            self._drain_lock = trio.Lock()
        async with self._drain_lock:
            if self._plain:
                await self._encrypt_all(self._plain)
            target = self._written + self._owed_bytes  # other tasks wait for what they add meanwhile
            while self._owed and self._written < target:
                try:
                    await self._room.wait_writable(self._socket)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                self.room_at = trio.current_time()
                self._push()

    @property
    def draining(self) -> bool:
        """Whether a task waits for owed bytes to be written."""
        return self._drain_lock is not None and self._drain_lock.locked()

    def takes_nothing(self, now: float) -> bool:
        """Whether the socket has taken none of the owed bytes for `write_seconds`."""
        return bool(self._owed) and now - self._moved_at >= self._write_seconds

    def stood_still(self, seconds: float) -> None:
        """Do not count the last `seconds`, in which the process stood still."""
        now = trio.current_time()
        self._moved_at = min(self._moved_at + seconds, now)
        self.room_at = min(self.room_at + seconds, now)

    # The end

    def end(self) -> None:
        """Accept no more offers, now or later."""
        self.ending = True
        self.stop_taking()

    def finish(self) -> None:
        """Accept no more offers, and half-close the socket once everything owed is written."""
        self.end()
        self._half_closes = True
        self._half_close_if_done()

    def close(self) -> None:
        """Drop what is owed, and write nothing any more. The owner closes the socket."""
        self.closed = True
        self._forget()
        self.stop_taking()

    def untie(self) -> None:
        """Release the references back to it: the connection has ended."""
        self._owner = self._writer = self._encrypt = None

    # TLS

    def take_encrypted(self, data: bytes) -> None:
        """Owe encrypted bytes, and write what the socket takes at once."""
        if not self.closed:
            self.owe(data)
            self._push()

    async def _encrypt_all(self, plain: list[bytes | memoryview]) -> None:
        """Encrypt everything that is owed in plain.

        Shielded, because a cancelled `send_all` breaks a TLS stream. It does not wait for the client: the transport accepts
        everything at once.
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
                self._plain_bytes = sum(map(len, plain))  # appended meanwhile
                self._half_close_if_done()
        if scope.cancelled_caught:
            owner.abort("write_seconds")

    # Behind what is owed

    def _write_behind(self, data: bytes | memoryview) -> bool:
        """Do what `write` does, where one system call is not enough."""
        if self.closed:
            return False
        if self._plain is not None:
            self._plain.append(data)
            self._plain_bytes += len(data)
            return False
        self.owe(data)
        return self._push()

    def _push(self) -> bool:
        """Write as much of the owed bytes as the socket takes at once; returns whether that was all."""
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
        """Remove the first `sent` bytes from what is owed."""
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
        if self._half_closes and not self.owed:
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
