"""Parses the query parameters of a client; docs/protocol.md, "Asking for it"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from ...chat.names import comparable
from ...chat.resume_cursor import joined
from ...chat.resume_cursor import parse as parse_cursor
from ...delivery.audience.wanted_start import EARLIEST, LATEST, Earliest, Latest, Since
from ...delivery.records.formats import Format
from ...delivery.session.options import SessionOptions
from ...errors import RequestError
from .times import parse_time, shown

if TYPE_CHECKING:
    from ...chat.names import ChatNames
    from ...chat.resume_cursor import ResumeCursor

PARAMETERS = 500  # the most parameters, whatever their names: enough for a hundred chats, tags and senders, and ids
REPEATED = 100  # the most chats, tags or senders
REWIND = 1000
HEARTBEAT_SECONDS = (10.0, 600.0)
AHEAD_MS = 60_000  # how far a client's clock may be ahead of ours
LAST_EVENT_ID = "Last-Event-ID"
IN_FRAME = "frame"  # the value of `cursor` or `start` if it comes as the first frame

_WHOLE = re.compile(r"[0-9]{1,15}")


class Query:
    """The decoded query parameters of a URL; unknown names are ignored.

    Args:
        query: as received, percent-encoded.

    Raises:
        RequestError: percent-encoding that is not UTF-8, or too many parameters.
    """

    def __init__(self, query: bytes) -> None:
        check_count(query)
        self._values: dict[str, list[str]] = {}
        for pair in query.split(b"&"):
            name, _, value = pair.partition(b"=")
            if pair:
                known = _decoded(name, "the name of a parameter")
                self._values.setdefault(known, []).append(_decoded(value, known))

    def all(self, name: str) -> list[str]:
        """Return every value of a parameter that may be repeated."""
        return self._values.get(name, [])

    def one(self, name: str) -> str | None:
        """Return the value of a parameter that may be given once; None if missing."""
        values = self.all(name)
        if len(values) > 1:
            raise RequestError(f"{name} is given {len(values)} times; once is allowed", field=name)
        return values[0] if values else None

    def some(self, name: str) -> list[str]:
        """Return the different values of a parameter that may be repeated up to a hundred times."""
        values = self.all(name)
        if len(values) > REPEATED:
            raise RequestError(f"{name} is given {len(values)} times; at most {REPEATED} are allowed", field=name)
        return list(dict.fromkeys(values))

    def filter(self, name: str) -> frozenset[str] | None:
        """Return the names that a filter allows, in comparable form; None if missing."""
        return frozenset(map(comparable, self.some(name))) or None

    def whole(self, name: str, *, most: int) -> int | None:
        """Return a number from 1 to `most`; None if missing."""
        value = self.one(name)
        if value is None:
            return None
        if not _WHOLE.fullmatch(value) or not 1 <= int(value) <= most:
            raise RequestError(f"{name} is {shown(value)}; a whole number from 1 to {most} is needed", field=name)
        return int(value)

    def time_ms(self, name: str, *, now_ms: int) -> int | None:
        """Return a time in Unix milliseconds; None if missing."""
        value = self.one(name)
        return None if value is None else parse_time(name, value, now_ms=now_ms)


def check_count(query: bytes) -> None:
    """Raise `RequestError` if a query has too many parameters; counts without decoding them."""
    count = query.count(b"&") + 1
    if count > PARAMETERS:
        raise RequestError(f"the address has {count} parameters; at most {PARAMETERS} are allowed")


def parse_options(query: bytes, *, format: Format, names: ChatNames, now_ms: int, last_had: str | None = None) -> SessionOptions:
    """Parse a client's options.

    Args:
        query: the query string, as received.
        format: the format of its messages, unless `meta=1` says otherwise.
        names: validates chats.
        now_ms: the current time, Unix milliseconds.
        last_had: the cursor of the header `Last-Event-ID`, which overrides those in the query.

    Raises:
        RequestError: a bad value; it names the parameter and what is allowed.
    """
    if not query and last_had is None:
        return SessionOptions(format=format)
    asked = Query(query)
    chosen = _format(asked) if format is Format.PLAIN else format
    cursors = asked.all("cursor") if last_had is None else []
    came_with = last_had or joined(cursors)
    in_frame = chosen is Format.V1 and cursors == [IN_FRAME]
    start = start_of(asked, now_ms)
    rewind = asked.whole("rewind", most=REWIND) or 0
    return SessionOptions(
        format=chosen,
        chats=tuple(dict.fromkeys(names.parse(chat, field="chat") for chat in asked.some("chat"))),
        cursor=_last_had(last_had) if last_had is not None else parse_cursor(came_with) if cursors and not in_frame else None,
        came_with=came_with if chosen is Format.EVENTS else "",
        cursor_in_frame=in_frame,
        start_in_frame=chosen is Format.V1 and asked.all("start") == [IN_FRAME],
        start=None if start == LATEST else start,
        rewind=rewind if start is None else 0,
        until_ms=until_ms(asked, now_ms),
        tags=asked.filter("tag"),
        senders=asked.filter("sender"),
        heartbeat_seconds=_heartbeat(asked) if chosen is Format.V1 else None,
    )


def until_ms(asked: Query, now_ms: int) -> int | None:
    """Return `until` in Unix milliseconds; None if missing."""
    until = asked.time_ms("until", now_ms=now_ms)
    if until is not None and until > now_ms + AHEAD_MS:
        raise RequestError(f"until is {shown(str(asked.one('until')))}, which is in the future; a time up to now is needed", field="until")
    return until


def start_of(asked: Query, now_ms: int) -> Latest | Earliest | Since | None:
    """Return `from`; None if missing.

    A time in the future counts as now: for it a broker would return the end at the time of the lookup, and messages written
    between the request and the lookup would be skipped.
    """
    value = asked.one("from")
    if value is None:
        return None
    if value == "latest":
        return LATEST
    if value == "earliest":
        return EARLIEST
    return Since(min(now_ms, parse_time("from", value, now_ms=now_ms, words="latest, earliest, ")))


def check_times(start: object, *, embedded: bool) -> None:
    """Raise `RequestError` for a time with the embedded broker, which would return the end for every time."""
    if embedded and isinstance(start, Since):
        raise RequestError("from is a time, but the embedded broker cannot look up times; use latest, earliest or rewind=N", field="from")


def _last_had(text: str) -> ResumeCursor:
    """Return the cursor of a `Last-Event-ID`; an error names the header, since the query may also have a `cursor`, which is ignored."""
    try:
        return parse_cursor(text)
    except RequestError as error:
        raise RequestError(LAST_EVENT_ID + str(error).removeprefix("cursor"), field=LAST_EVENT_ID) from error


def _format(asked: Query) -> Format:
    value = asked.one("meta")
    if value not in (None, "0", "1"):
        raise RequestError(f"meta is {shown(str(value))}; 1 or 0 is needed", field="meta")
    return Format.V1 if value == "1" else Format.PLAIN


def _heartbeat(asked: Query) -> float | None:
    value = asked.one("heartbeat")
    if value is None:
        return None
    if not _WHOLE.fullmatch(value):
        raise RequestError(f"heartbeat is {shown(value)}; whole seconds are needed, 10 to 600", field="heartbeat")
    least, most = HEARTBEAT_SECONDS
    return min(max(float(value), least), most)


def _decoded(text: bytes, name: str) -> str:
    try:
        return unquote_to_bytes(text.replace(b"+", b" ")).decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"{name} is not UTF-8; percent-encode its UTF-8 bytes", field=None if " " in name else name) from error
