"""The transport under a TLS stream, which accepts everything at once, so that encrypting never waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MOST_BYTES = 64 * 1024  # read at once


class OwedTransport(trio.abc.Stream):
    """Reads from a socket; passes what it sends to the connection, which then owes it.

    A `trio.SSLStream` over a socket encrypts and waits for the client in the same call; a cancel there leaves the stream
    unusable, with half a message on the wire. Over this transport the call only encrypts.
    """

    def __init__(self, stream: trio.SocketStream, receive: Callable[[int], Awaitable[bytes]], take: Callable[[bytes], None]) -> None:
        """Wrap `stream`.

        Args:
            stream: the stream of the socket.
            receive: reads from it, at most the given number of bytes.
            take: called with the bytes to send.
        """
        self._stream = stream
        self._receive = receive
        self._take = take
        self.socket = stream.socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Pass `data` on; no checkpoint, because the stream above has one."""
        self._take(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: nothing blocks."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read from the socket."""
        return await self._receive(MOST_BYTES if max_bytes is None else max_bytes)

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()
