"""What clients get of a message: which form, and which messages."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from .frames import text_header

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...chat.cursor import MessageIds

MARK = b"\0"  # where a client's cursor comes in an event: a byte that neither JSON nor base64 has


class Format(enum.Enum):
    """How messages are written; docs/protocol.md."""

    PLAIN = "WebSocket text frames of four fields"
    V1 = "the same, with `meta`"
    EVENTS = "server-sent events, whose `id` is `MARK` and the message's id: the client's cursor and a dot take its place"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one client sees of a partition. Clients of equal views share the same bytes.

    Attributes:
        format: how.
        tags: only messages with one of these, or without any; None: all.
        senders: only messages from one of these; None: all.
    """

    format: Format = Format.PLAIN
    tags: frozenset[str] | None = None
    senders: frozenset[str] | None = None

    @property
    def filtered(self) -> bool:
        """Whether there are messages that it leaves out."""
        return self.tags is not None or self.senders is not None

    def shows(self, sender: str, tag: str | None) -> bool:
        """Whether it has a message."""
        return (self.senders is None or sender in self.senders) and (self.tags is None or tag is None or tag in self.tags)


PLAIN = View()


class RecordMeta(NamedTuple):
    """What a record has beside its value.

    Attributes:
        time_ms: its timestamp; negative where it has none.
        key: as it is.
        headers: name and value, in order.
    """

    time_ms: int
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def v1_payload(payload: bytes, ids: MessageIds, partition: int, offset: int, record_meta: RecordMeta) -> bytes:
    """Return a bare payload with `meta` after its four fields."""
    key = b"null" if record_meta.key is None else _encode(_text(record_meta.key))
    headers = b"[]"
    if record_meta.headers:
        headers = _encode([(name, None if value is None else _text(value)) for name, value in record_meta.headers])
    time_ms = b"null" if record_meta.time_ms < 0 else b"%d" % record_meta.time_ms
    meta = (payload[:-1], ids.of(offset), partition, offset, time_ms, key, headers)
    return b'%b,"meta":{"id":"%b","partition":%d,"offset":%d,"time":%b,"key":%b,"headers":%b}}' % meta


def text_frame(payload: bytes) -> bytes:
    """Return a whole text frame: RFC 6455 section 5.2."""
    return text_header(len(payload)) + payload


def event(payload: bytes, ids: MessageIds, offset: int) -> bytes:
    """Return a message as an event, `MARK` where a client's cursor comes: HTML, section 9.2.6."""
    return b"%b%b\ndata: %b\n\n" % (MARK, ids.of(offset), payload)


def payload_of(frame: bytes) -> bytes:
    """Return the payload of one text frame."""
    size = frame[1]
    return frame[2:] if size < 126 else frame[4:] if size == 126 else frame[10:]


def _text(data: bytes) -> str | dict[str, bytes]:
    """Return bytes as text, or, where they are none, in base64 with a name to it."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": data}


_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
