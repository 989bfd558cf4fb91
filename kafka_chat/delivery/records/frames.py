"""RFC 6455 server frames as bytes."""

from __future__ import annotations

import struct

PING = b"\x89\x00"  # a ping without a payload: RFC 6455 section 5.5.2

_TEXT = 0x81  # FIN and opcode 1: a whole message in one frame


def text_header(size: int) -> bytes:
    """Return the header of a final, unmasked text frame with a payload of `size` bytes.

    Returns:
        2, 4 or 10 bytes.
    Spec: RFC 6455 section 5.2 (framing), 5.1 (a server does not mask).
    """
    if size < 126:
        return bytes((_TEXT, size))
    if size < 1 << 16:
        return struct.pack("!BBH", _TEXT, 126, size)
    return struct.pack("!BBQ", _TEXT, 127, size)


def text_payloads(frames: bytes) -> list[bytes]:
    """Return the payloads of whole text frames with headers by `text_header`.

    For the connections of other servers, which take messages instead of frames.
    """
    payloads, at, end = [], 0, len(frames)
    while at < end:
        size, head = frames[at + 1], 2
        if size == 126:
            size, head = int.from_bytes(frames[at + 2 : at + 4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(frames[at + 2 : at + 10], "big"), 10
        payloads.append(frames[at + head : at + head + size])
        at += head + size
    return payloads
