"""The query parameters of a client's WebSocket; docs/protocol.md, "Asking for it"."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

LONGEST_IN_ADDRESS = 4096  # bytes of a cursor; a longer one is sent as the first frame
HEARTBEAT_SECONDS = 20

Moment = str | int | datetime | timedelta
"""A time, as text of the protocol, Unix milliseconds, a `datetime` with a zone, or how long ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A client's options; the defaults set none.

    Attributes:
        from_: where to begin without a cursor.
        rewind: begin with this many last messages of each chat, without `from_`; 0: no.
        until: end after the messages older than this.
        chats: only these chats, subscribed or not.
        tags: only messages with one of these, or with none.
        senders: only messages from one of these.
    """

    from_: Moment | None = None
    rewind: int = 0
    until: Moment | None = None
    chats: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()

    def query(self, cursor: str | None, *, begun: bool) -> str:
        """Return the query string.

        Args:
            cursor: where to continue, if known.
            begun: whether the service has sent a cursor before; then chats that it does not name begin where they were subscribed to.
        """
        pairs: list[tuple[str, object]] = [("heartbeat", HEARTBEAT_SECONDS)]
        if cursor is not None:
            pairs.append(("cursor", "frame" if in_frame(cursor) else cursor))
        if not begun:
            pairs += [("from", _text(self.from_))] if self.from_ is not None else []
            pairs += [("rewind", self.rewind)] if self.rewind else []
        pairs += [("until", _text(self.until))] if self.until is not None else []
        for name, values in (("chat", self.chats), ("tag", self.tags), ("sender", self.senders)):
            pairs += [(name, value) for value in values]
        return urlencode(pairs, errors="surrogateescape")


def in_frame(cursor: str) -> bool:
    """Return whether a cursor is too long for a URL."""
    return len(cursor) > LONGEST_IN_ADDRESS


def _text(moment: Moment) -> str:
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError(f"{moment} has no time zone, and without one it is not a moment")
        return str(round(moment.timestamp() * 1000))
    if isinstance(moment, timedelta):
        return f"-{round(moment.total_seconds())}s"
    return str(moment)
