"""What a client receives: the format, and which messages."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .frames import text_header

if TYPE_CHECKING:
    from ...chat.resume_cursor import MessageIds

MARK = b"\0"  # stands for a client's cursor in an event: a byte that occurs in neither JSON nor base64


class Format(enum.Enum):
    """The formats of messages; docs/protocol.md."""

    PLAIN = "WebSocket text frames of four fields"
    V1 = "the same, with `meta`"
    EVENTS = "server-sent events, whose `id` is `MARK` and the message's id: the client's cursor and a dot take its place"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one client sees of a partition. Clients with equal views share the same bytes.

    Attributes:
        format: the format of messages.
        tags: only messages with one of these tags, or without any; None: all. Made by `comparable`, like the senders.
        senders: only messages from one of these senders; None: all.
    """

    format: Format = Format.PLAIN
    tags: frozenset[str] | None = None
    senders: frozenset[str] | None = None

    @property
    def filtered(self) -> bool:
        """Whether it leaves out messages."""
        return self.tags is not None or self.senders is not None

    def shows(self, sender: str, tag: str | None) -> bool:
        """Whether it shows a message with this sender and tag, as `comparable` returns them."""
        return (self.senders is None or sender in self.senders) and (self.tags is None or tag is None or tag in self.tags)


PLAIN = View()


class Bound(NamedTuple):
    """Where a reader ends.

    Attributes:
        end: no offsets at or above this one.
        before_ms: only messages older than this, Unix milliseconds; None: all. A message without a timestamp counts
            as older.
    """

    end: int
    before_ms: int | None = None


def text_frame(payload: bytes) -> bytes:
    """Return a whole text frame: RFC 6455 section 5.2."""
    return text_header(len(payload)) + payload


def event(payload: bytes, ids: MessageIds, offset: int, epoch: int) -> bytes:
    """Return a message as an event, with `MARK` in place of the client's cursor: HTML, section 9.2.6."""
    return b"%b%b\ndata: %b\n\n" % (MARK, ids.of(offset, epoch), payload)


def skipped_event(payload: bytes, ids: MessageIds, offset: int, epoch: int) -> bytes:
    """Return the notice that replaces a message as an event; its cursor is after the message."""
    return b"%b%b\nevent: skipped\ndata: %b\n\n" % (MARK, ids.of(offset, epoch), payload)


def payload_of(frame: bytes) -> bytes:
    """Return the payload of one text frame."""
    size = frame[1]
    return frame[2:] if size < 126 else frame[4:] if size == 126 else frame[10:]
