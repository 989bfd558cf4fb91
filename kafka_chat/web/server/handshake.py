"""Checks the handshake of a WebSocket: RFC 6455 section 4.2.1."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import TYPE_CHECKING

from .refusals import Header, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VERSION = b"13"
KEY_BYTES = 16  # RFC 6455 section 4.1, item 7

_SPOKEN: tuple[Header, ...] = ((b"sec-websocket-version", VERSION),)  # sent with each refusal of a version (section 4.4)
_LISTS = (b"connection", b"sec-websocket-protocol", b"sec-websocket-extensions")  # may be spread over several lines


def is_handshake(method: bytes, headers: Sequence[Header]) -> bool:
    """Whether an HTTP/1.1 request asks for a WebSocket, correctly or not."""
    return method == b"GET" and b"websocket" in _tokens(headers, b"upgrade") and b"upgrade" in _tokens(headers, b"connection")


def joined(headers: Sequence[Header]) -> list[Header]:
    """Return a handshake's headers with each list joined into one line, as hypercorn expects it (RFC 9110 section 5.3)."""
    lists = [(name, b", ".join(_values(headers, name))) for name in _LISTS if _values(headers, name)]
    return [header for header in headers if header[0] not in (*_LISTS, b"upgrade")] + [*lists, (b"upgrade", b"websocket")]


def refusal_of(headers: Sequence[Header]) -> Refusal | None:
    """Return the refusal of a handshake with these headers; None if it is correct.

    Args:
        headers: names in lower case.
    """
    versions, keys = _values(headers, b"sec-websocket-version"), _values(headers, b"sec-websocket-key")
    if len(versions) != 1:
        return _malformed(f"it has {len(versions)} headers Sec-WebSocket-Version, one is needed", _SPOKEN)
    if versions[0] != VERSION:
        upgrade = ((b"upgrade", b"websocket"), (b"connection", b"upgrade"))
        sentence = f"this service speaks version {VERSION.decode()} of WebSocket alone (RFC 6455), not {_shown(versions[0])}"
        return Refusal(status=426, sentence=sentence, headers=(*_SPOKEN, *upgrade))
    if len(keys) != 1:
        return _malformed(f"it has {len(keys)} headers Sec-WebSocket-Key, one is needed")
    if not _is_key(keys[0]):
        return _malformed(f"Sec-WebSocket-Key is {_shown(keys[0])}, which is not {KEY_BYTES} bytes in base64")
    if any(value.strip(b"0") for value in _values(headers, b"content-length")) or _values(headers, b"transfer-encoding"):
        return _malformed("it has a body")
    if not all(value.isascii() for name in _LISTS for value in _values(headers, name)):
        return _malformed("a header that names protocols or extensions is not ASCII")
    return None


def early_frame() -> Refusal:
    """Return the refusal of a client that sends frames before its handshake is answered."""
    return _malformed("a frame came before it was answered")


def _malformed(what: str, headers: tuple[Header, ...] = ()) -> Refusal:
    return Refusal(status=400, sentence=f"the handshake of the WebSocket is malformed: {what}", headers=headers)


def _is_key(value: bytes) -> bool:
    try:
        return len(b64decode(value, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False


def _values(headers: Iterable[Header], name: bytes) -> list[bytes]:
    return [value for found, value in headers if found == name]


def _tokens(headers: Iterable[Header], name: bytes) -> list[bytes]:
    return [token.strip().lower() for value in _values(headers, name) for token in value.split(b",")]


def _shown(value: bytes) -> str:
    return repr(value[:60].decode("ascii", "replace"))
