"""WebSocket frames (RFC 6455) as bytes, including invalid ones; deliberately without a library."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum


class Opcode(IntEnum):
    """RFC 6455 section 11.8."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class BrokenStream(AssertionError):
    """The server sent what a WebSocket server may not send; says what, and where in the stream."""


class StreamEnded(BrokenStream):
    """The connection ended too early."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame from the server, found correct."""

    opcode: Opcode
    payload: bytes
    final: bool = True


def client_frame(opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """Return a frame as a client sends it, or as it may not.

    Args:
        opcode: any number from 0 to 15.
        payload: any bytes.
        final: the FIN bit.
        masked: as a client must.
        reserved: RSV1 to RSV3 as a number from 0 to 7.
    """
    head = bytes([final << 7 | reserved << 4 | opcode])
    size, mask_bit = len(payload), masked << 7
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 65536:
        head += struct.pack("!BH", mask_bit | 126, size)
    else:
        head += struct.pack("!BQ", mask_bit | 127, size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def close_code(frame: Frame) -> tuple[int, str]:
    """Return code and reason of a close frame; 1005 where it has none (RFC 6455 section 7.1.5)."""
    assert frame.opcode is Opcode.CLOSE, frame
    if not frame.payload:
        return 1005, ""
    return int.from_bytes(frame.payload[:2], "big"), frame.payload[2:].decode()


def whole_frames(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the frames that a server's bytes begin with, as far as they are whole: the first byte, the payload, where the frame ends.

    Little is checked, for hundreds of clients in one process; `RawClient` checks everything.
    """
    at, size = 0, len(data)
    while size - at >= 2:
        first, length, head = data[at], data[at + 1], 2
        if length > 125:
            head = 4 if length == 126 else 10
            if length > 127:
                raise BrokenStream(f"the server sent a masked frame: {data[at : at + 40]!r}")
            if size - at < head:
                return
            length = int.from_bytes(data[at + 2 : at + head])
        if size - at < head + length:
            return
        payload = data[at + head : at + head + length]
        at += head + length
        yield first, payload, at
