"""What a socket has not taken yet: written in the order in which it was decided, and counted to the byte."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from .policy import ConnectionPolicy

PIECES = 64  # of what is owed, written by one system call; far below IOV_MAX


class OwedBytes:
    """The writing half of a connection.

    What hypercorn or a sink has to say is first appended to what is owed, in the same synchronous step in which it was decided; then
    what is owed is written, from the front, without waiting (`write`) or with (`drain`). A write's count is known exactly, so a
    cancelled `drain` tears nothing: what is owed stays owed.
    """

    policy: ConnectionPolicy
    stream: trio.SSLStream[trio.SocketStream]
    send_lock: trio.Lock

    def __init__(self, socket: trio.socket.SocketType, *, tls: bool) -> None:
        self._socket = socket
        self._tls = tls
        self._gone = False
        self._owed: list[bytes | memoryview] = []
        self._owed_bytes = 0
        self._plain: list[bytes | memoryview] = []  # under TLS: what is owed, and not yet encrypted
        self._plain_bytes = 0
        self._written = 0  # bytes of those that had to be owed
        self._moved_at = 0.0  # when the socket last took of them, or they began to be owed
        self._heard_at = 0.0

    def abort(self, reason: str | None = None) -> None:
        """End the connection now; see `ChatTCPServer`."""
        raise NotImplementedError

    def _lost(self) -> None:
        """The client is gone, as a write has shown."""
        raise NotImplementedError

    def _room_changed(self) -> None:
        """Something is owed from now on, or nothing is any more."""
        raise NotImplementedError

    def _all_taken(self) -> None:
        """The socket has taken all that was owed."""
        raise NotImplementedError

    @property
    def owed(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._owed_bytes + self._plain_bytes

    def owe(self, data: bytes | memoryview) -> None:
        """Owe what a socket that owed nothing did not take."""
        if not self._owed:
            self._moved_at = trio.current_time()
        self._owed.append(data)
        self._owed_bytes += len(data)
        self._room_changed()

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

        A client that takes nothing for `limits.write_seconds` is aborted, see `takes_nothing`; not by a deadline here: those of all
        clients behind a cable that was cut would be over in one and the same round of the loop.
        """
        async with self._drain_lock:
            if self._plain:
                await self._encrypt()
            target = self._written + self._owed_bytes  # what others add meanwhile is theirs to wait for
            while self._owed and self._written < target:
                try:
                    await self.policy.ready_sockets.wait_writable(self._socket)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                # A socket that was full has room, so the client acknowledged something: it is alive.
                self._heard_at = trio.current_time()
                self._push()

    def takes_nothing(self, now: float) -> bool:
        """Whether the socket has taken nothing of what is owed for as long as is allowed."""
        return bool(self._owed) and now - self._moved_at >= self.policy.limits.write_seconds

    @property
    def _drain_lock(self) -> trio.Lock:
        if self.send_lock is None:
            self.send_lock = trio.Lock()
        return self.send_lock

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
        self._all_taken()
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

    def _forget(self) -> None:
        self._owed.clear()
        self._owed_bytes = 0
        self._plain.clear()
        self._plain_bytes = 0

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
