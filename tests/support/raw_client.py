"""A WebSocket client down to its bytes, deliberately without a library: for broken clients, and to check the server's bytes."""

from __future__ import annotations

import codecs
import random
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import urlsplit

import trio

from .deadlines import HANG_SECONDS
from .http_client import Answer
from .wire_frames import BrokenStream, Frame, Opcode, StreamEnded, client_frame, close_code

__all__ = [
    "ACCEPT",
    "BrokenStream",
    "Frame",
    "Opcode",
    "RawClient",
    "StreamEnded",
    "client_frame",
    "close_code",
    "handshake_request",
    "open_raw",
]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the example of RFC 6455 section 1.3 …
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # … and what a server has to answer


def handshake_request(path: str, *, host: str = "127.0.0.1", headers: Mapping[str, str] | None = None) -> bytes:
    """Return the request of a WebSocket handshake.

    Args:
        path: percent-encoded, with its query.
        host: the Host header.
        headers: further ones, or other values; an empty value leaves a header out.
    """
    all_headers = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in all_headers.items() if value), "", ""]
    return "\r\n".join(lines).encode("latin-1")


async def connected(url: str, *, receive_buffer: int | None = None) -> trio.SocketStream:
    """Connect to a server.

    Args:
        url: of which host and port count.
        receive_buffer: SO_RCVBUF in bytes: how much the kernel takes for a client that does not read. The kernel doubles it, and has a
            least value of its own.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)  # before connecting: it decides the window
    try:
        with trio.fail_after(HANG_SECONDS):
            await connection.connect((parts.hostname, parts.port))
    except BaseException:
        connection.close()
        raise
    return trio.SocketStream(connection)


class RawClient:
    """One TCP connection. What the server sends is checked as it is read; nothing is answered unasked, pings included.

    Attributes:
        frames_read: all frames so far.
        bytes_read: since the connection was made.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.frames_read: list[Frame] = []
        self.bytes_read = 0
        self._stream = stream
        self._buffer = bytearray()
        self._consumed = 0
        self._fragments: Opcode | None = None
        self._text = codecs.getincrementaldecoder("utf-8")("strict")
        self._closing = False

    @classmethod
    async def connect(cls, url: str, *, receive_buffer: int | None = None) -> Self:
        """Connect as `connected` does."""
        return cls(await connected(url, receive_buffer=receive_buffer))

    @property
    def port(self) -> int:
        """Our end's port."""
        return int(self._stream.socket.getsockname()[1])

    # --- writing

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self._stream.send_all(data)

    async def send_frame(self, opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True, reserved: int = 0) -> None:
        """Send a frame; see `client_frame`."""
        await self.send(client_frame(opcode, payload, final=final, masked=masked, reserved=reserved))

    async def handshake(self, path: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask for a WebSocket and return the answer, which is checked if it is a 101."""
        await self.send(handshake_request(path, headers=headers))
        response = await self.read_response()
        if response.status == 101:
            wrong = {
                name: response.headers.get(name)
                for name, value in {"sec-websocket-accept": ACCEPT, "upgrade": "websocket", "connection": "upgrade"}.items()
                if response.headers.get(name, "").lower() != value.lower()
            }
            if wrong:
                raise BrokenStream(f"the handshake was answered with {wrong}")
            extensions = response.headers.get("sec-websocket-extensions")
            if extensions is not None:
                raise BrokenStream(f"the server chose extensions that nobody offered, or that are never to be used: {extensions}")
        return response

    async def ping(self, payload: bytes | None = None, *, seconds: float = HANG_SECONDS) -> None:
        """Ping, and read until the matching pong has come; frames before it are in `frames_read`."""
        payload = random.randbytes(8) if payload is None else payload
        await self.send_frame(Opcode.PING, payload)
        with trio.fail_after(seconds):
            while (frame := await self.read_frame()) != Frame(Opcode.PONG, payload):
                if frame is None:
                    raise StreamEnded("the connection ended before the pong")

    # --- reading

    async def read_response(self, *, seconds: float = HANG_SECONDS) -> Answer:
        """Read the head of an HTTP response, and its body as far as `content-length` says."""
        with trio.fail_after(seconds):
            while (end := self._buffer.find(b"\r\n\r\n")) < 0:
                if not await self._read_more():
                    raise StreamEnded(f"the connection ended instead of an HTTP response, after {bytes(self._buffer)!r}")
            lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
            self._take(end + 4)
            status = int(lines[0].split(" ", 2)[1])
            headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            size = int(headers.get("content-length", "0"))
            while len(self._buffer) < size:
                if not await self._read_more():
                    raise StreamEnded(f"the connection ended after {len(self._buffer)} of {size} bytes of a response")
            return Answer(status=status, headers=headers, body=self._take(size))

    async def next_frame(self, *, seconds: float = HANG_SECONDS) -> Frame:
        """Read one frame of any kind within a deadline."""
        with trio.fail_after(seconds):
            frame = await self.read_frame()
        if frame is None:
            raise StreamEnded("the connection ended instead of a frame")
        return frame

    async def next_text(self, *, seconds: float = HANG_SECONDS) -> str:
        """Read up to the next text frame, whole messages only, within a deadline; pings are answered."""
        with trio.fail_after(seconds):
            while True:
                frame = await self.read_frame()
                if frame is None:
                    raise StreamEnded("the connection ended instead of a text frame")
                if frame.opcode is Opcode.TEXT:
                    return frame.payload.decode()
                if frame.opcode is Opcode.PING:
                    await self.send_frame(Opcode.PONG, frame.payload)
                if frame.opcode is Opcode.CLOSE:
                    raise BrokenStream(f"the connection was closed ({close_code(frame)}) instead of a text frame")

    async def read_frame(self) -> Frame | None:
        """Read one frame; None where the connection ended between two frames, or was reset.

        Raises:
            BrokenStream: it is no frame that a server may send now.
        """
        while (frame := self._parse()) is None:
            if not await self._read_more():
                if self._buffer:
                    raise StreamEnded(f"the connection ended inside a frame, at byte {self._consumed}: {bytes(self._buffer[:40])!r}")
                return None
        self.frames_read.append(frame)
        return frame

    async def read_to_end(self, *, seconds: float = HANG_SECONDS) -> list[Frame]:
        """Read frames until the server ends the connection, and return these."""
        before = len(self.frames_read)
        with trio.fail_after(seconds):
            while await self.read_frame() is not None:
                pass
        return self.frames_read[before:]

    async def receive(self, most: int = 65536) -> bytes:
        """Return bytes as they come, unparsed; none at the end of the stream, or where it was reset."""
        try:
            data = bytes(await self._stream.receive_some(most))
        except trio.BrokenResourceError:
            return b""
        self.bytes_read += len(data)
        return data

    def unparsed(self) -> bytes:
        """Return what was received and is in no frame yet, and leave it to the caller."""
        return self._take(len(self._buffer))

    async def wait_ended(self, *, seconds: float = HANG_SECONDS) -> bytes:
        """Read whatever comes until the server ends the connection, and return it unparsed."""
        with trio.fail_after(seconds):
            while await self._read_more():
                pass
        return self.unparsed()

    # --- leaving

    async def close(self) -> None:
        """Close our end; what was not read makes the kernel send RST instead of FIN."""
        await self._stream.aclose()

    def let_go(self) -> None:
        """Close our end without a checkpoint."""
        self._stream.socket.close()

    def reset(self) -> None:
        """End the connection with RST."""
        self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._stream.socket.close()

    async def half_close(self) -> None:
        """Send FIN, and go on reading."""
        await self._stream.send_eof()

    # --- inside

    async def _read_more(self) -> bool:
        """Read what has come; False at the end of the stream, or after a reset."""
        data = await self.receive()
        self._buffer += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._consumed += count
        return taken

    def _parse(self) -> Frame | None:
        """Return the frame at the front of what was read, or None where it is not whole yet."""
        buffer = self._buffer
        if self._closing and buffer:
            raise self._broken("bytes after the close frame")
        if len(buffer) < 2:
            return None
        size, head = buffer[1] & 127, 2
        if buffer[1] & 128:
            raise self._broken("a masked frame")
        if size == 126:
            if len(buffer) < (head := 4):
                return None
            (size,) = struct.unpack_from("!H", buffer, 2)
            if size < 126:
                raise self._broken("a length in more bytes than it needs")
        elif size == 127:
            if len(buffer) < (head := 10):
                return None
            (size,) = struct.unpack_from("!Q", buffer, 2)
            if not 65536 <= size < 2**63:
                raise self._broken("a length in more bytes than it needs, or over the limit")
        if buffer[0] & 0x70:
            raise self._broken("a frame with a reserved bit")
        if buffer[0] & 15 not in Opcode._value2member_map_:
            raise self._broken("a frame with an unknown opcode")
        if len(buffer) < head + size:
            return None
        frame = Frame(Opcode(buffer[0] & 15), bytes(buffer[head : head + size]), final=bool(buffer[0] & 128))
        self._check(frame)
        self._take(head + size)
        return frame

    def _check(self, frame: Frame) -> None:
        if frame.opcode >= Opcode.CLOSE:
            if not frame.final or len(frame.payload) > 125:
                raise self._broken("a control frame that is fragmented or too long")
            if frame.opcode is Opcode.CLOSE:
                self._closing = True
                self._check_close(frame.payload)
            return
        if (frame.opcode is Opcode.CONTINUATION) != (self._fragments is not None):
            raise self._broken("a continuation without a beginning, or a beginning before the end")
        kind = self._fragments or frame.opcode
        if kind is Opcode.TEXT:
            try:
                self._text.decode(frame.payload, frame.final)
            except UnicodeDecodeError as error:
                raise self._broken(f"text that is not UTF-8 ({error})") from error
        self._fragments = None if frame.final else kind

    def _check_close(self, payload: bytes) -> None:
        if len(payload) == 1:
            raise self._broken("a close frame with half a code")
        if payload:
            (code,) = struct.unpack_from("!H", payload)
            if code < 1000 or code in (1004, 1005, 1006, 1015) or 1016 <= code < 3000 or code >= 5000:
                raise self._broken(f"the close code {code}")
            try:
                payload[2:].decode()
            except UnicodeDecodeError as error:
                raise self._broken("a close reason that is not UTF-8") from error

    def _broken(self, what: str) -> BrokenStream:
        return BrokenStream(f"the server sent {what}, at byte {self._consumed} of the stream: {bytes(self._buffer[:40])!r}…")


@asynccontextmanager
async def open_raw(url: str, path: str | None = None, *, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
    """Connect while the block runs; with a path, be a WebSocket client that was accepted there."""
    client = await RawClient.connect(url, receive_buffer=receive_buffer)
    try:
        if path is not None:
            response = await client.handshake(path)
            assert response.status == 101, response
        yield client
    finally:
        with trio.CancelScope(shield=True):  # closing a socket stream does not wait
            await client.close()
