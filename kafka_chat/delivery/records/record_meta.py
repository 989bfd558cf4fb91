"""The `meta` of a message, limited to the size of a frame.

It is made with the batch, in the reading thread, so that only what is shown is kept in memory, and the time to render it is
proportional to its size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ...chat.message import LeftOut
from ...chat.resume_cursor import NO_EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...chat.resume_cursor import MessageIds

META_BYTES = 64 * 1024  # the most JSON for a record's key and headers together; a key of 900 kB blocked the loop for 14 ms
HEADERS = 1_000  # the most headers of a record; encoding this many blocks the loop for half a millisecond
FIXED_BYTES = 256  # the most JSON of `meta` without key and headers: names, a position, three numbers of up to 20 digits
ESCAPED = 6  # the most bytes of JSON for a byte of text: \u0001
SMALL_KEY_BYTES = (META_BYTES - FIXED_BYTES) // ESCAPED  # a key of this size always fits

NAME_NOT_READ = "\ufffd"  # replaces a header's name that is not UTF-8

_NO_HEADERS = b"[]"


class RecordMeta(NamedTuple):
    """The shown parts of a record besides its value.

    Attributes:
        time_ms: its timestamp; negative if it has none.
        key: its raw key.
        headers: JSON.
        left_out: the names of the parts that are not shown, JSON; empty if there are none.
        epoch: its leader epoch, for its id.
    """

    time_ms: int
    key: bytes | None
    headers: bytes = _NO_HEADERS
    left_out: bytes = b""
    epoch: int = NO_EPOCH


class Fitted(NamedTuple):
    """A record's `meta` after the limits.

    Attributes:
        meta: the parts that are shown.
        what: the parts that are left out.
        fits: whether the message's frame is within the limit now; if not, a notice replaces it.
    """

    meta: RecordMeta
    what: Sequence[LeftOut]
    fits: bool


def is_small(key: bytes | None, room: int) -> bool:
    """Return whether the `meta` of a record without headers certainly fits.

    Args:
        key: its key, of at most `SMALL_KEY_BYTES`.
        room: the most bytes of `meta`.
    """
    return FIXED_BYTES + (0 if key is None else ESCAPED * len(key)) <= room


def fit(
    payload: bytes, meta: RecordMeta, raw_headers: Sequence[tuple[str, bytes | None]], unreadable: Sequence[LeftOut], *,
    ids: MessageIds, partition: int, offset: int, max_bytes: int,
) -> Fitted:  # fmt: skip
    """Leave out what exceeds the limits: headers first, then the key.

    Args:
        payload: the bare message.
        meta: time and key.
        raw_headers: the record's headers.
        unreadable: the parts that could not be read.
        ids: makes the ids of the partition's messages.
        partition: the partition.
        offset: the record's offset.
        max_bytes: `limits.message_bytes`, for the message with `meta`.
    """
    what = list(unreadable)
    if meta.key is not None and (len(meta.key) > META_BYTES or len(encoded_key(meta.key)) > META_BYTES):
        meta = meta._replace(key=None)
        what.append(LeftOut.KEY)
    headers = _encoded_headers(raw_headers)
    key_bytes = len(encoded_key(meta.key))
    if headers is None or (raw_headers and len(headers) + key_bytes > META_BYTES):
        headers = _NO_HEADERS
        what.append(LeftOut.HEADERS)
    meta = meta._replace(headers=headers, left_out=_names(what))

    def size() -> int:
        return len(payload) + len(v1_payload(b"{}", ids, partition, offset, meta)) - 2

    if size() > max_bytes and meta.headers != _NO_HEADERS:
        what.append(LeftOut.HEADERS)
        meta = meta._replace(headers=_NO_HEADERS, left_out=_names(what))
    if size() > max_bytes and meta.key is not None:
        what.append(LeftOut.KEY)
        meta = meta._replace(key=None, left_out=_names(what))
    fits = size() <= max_bytes
    return Fitted(meta, what if fits else [*what, LeftOut.MESSAGE], fits)


def v1_payload(payload: bytes, ids: MessageIds, partition: int, offset: int, meta: RecordMeta) -> bytes:
    """Return a bare payload with `meta` after its four fields."""
    time_ms = b"null" if meta.time_ms < 0 else b"%d" % meta.time_ms
    fields = (payload[:-1], ids.of(offset, meta.epoch), partition, offset, time_ms, encoded_key(meta.key), meta.headers)
    if meta.left_out:
        return b'%b,"meta":{"id":"%b","partition":%d,"offset":%d,"time":%b,"key":%b,"headers":%b,"left_out":%b}}' % (*fields, meta.left_out)
    return b'%b,"meta":{"id":"%b","partition":%d,"offset":%d,"time":%b,"key":%b,"headers":%b}}' % fields


def skipped_payload(chat: str, ids: MessageIds, partition: int, offset: int, meta: RecordMeta) -> bytes:
    """Return the notice that replaces a message that is too large with its `meta`; it has the message's id."""
    time = None if meta.time_ms < 0 else meta.time_ms
    shown = ids.of(offset, meta.epoch).decode()
    about = {"chat": chat, "id": shown, "partition": partition, "offset": offset, "time": time, "cause": "too_large"}
    return _encode({"meta": {"type": "skipped", **about}})


def encoded_key(key: bytes | None) -> bytes:
    """Return a key in its JSON form in `meta`."""
    return b"null" if key is None else _encode(_text(key))


def _encoded_headers(headers: Sequence[tuple[str, bytes | None]]) -> bytes | None:
    """Return headers in their JSON form in `meta`; None if they are too many, or certainly too large."""
    if not headers:
        return _NO_HEADERS
    if len(headers) > HEADERS or sum(len(name) + len(value or b"") for name, value in headers) > META_BYTES:
        return None
    # A copy, because the encoder's result is in a larger block of memory, a third of which is unused.
    return bytes(memoryview(_encode([(name, None if value is None else _text(value)) for name, value in headers])))


def _names(what: Sequence[LeftOut]) -> bytes:
    shown = sorted({one for one in what if one is not LeftOut.HEADER_NAME})
    return _encode(shown) if shown else b""


def _text(data: bytes) -> str | dict[str, bytes]:
    """Return bytes as text, or as an object with base64 if they are not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": data}


_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
