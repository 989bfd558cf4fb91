"""Parses times as people and programs write them, into Unix milliseconds."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from ...errors import RequestError

_LEAST_MS = 10**11  # smaller numbers are probably seconds; in milliseconds they would be before 1973
_MOST_MS = 10**14
_SPAN = re.compile(r"-([0-9]{1,9})([smhd])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WHOLE = re.compile(r"[0-9]{1,15}")
# RFC 3339 and similar forms: nine digits or no seconds (Java), the zone's name after it (Java), a comma (`date -Ins`), a space for
# the T (`date --rfc-3339`), a zone without a colon (PHP, `date +%z`) or minutes (PostgreSQL). A plus that was not percent-encoded
# arrives as a space.
_WRITTEN = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,30}))?)?(?:([Zz])|([+ -])(\d\d)(?::?(\d\d))?)?(?:\[[\w/+:-]{1,40}\])?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_NEEDED = "a time (2026-11-25T10:00:00Z), Unix milliseconds or a span (-15m)"  # short: a close frame has 123 bytes for it all


def parse_time(name: str, value: str, *, now_ms: int, words: str = "") -> int:
    """Return a time, Unix, in milliseconds, rounded up, so that it does not include earlier milliseconds.

    Args:
        name: the parameter.
        value: its value.
        now_ms: the current time, Unix milliseconds.
        words: other allowed words, for the error: `latest, earliest, `.

    Raises:
        RequestError: it is not a time.
    """
    span = _SPAN.fullmatch(value)
    if span:
        return max(0, now_ms - int(span[1]) * _UNIT_MS[span[2]])
    if _WHOLE.fullmatch(value):
        if not _LEAST_MS <= int(value) < _MOST_MS:
            raise RequestError(f"{name} is {value}; Unix milliseconds are needed, from {_LEAST_MS} to {_MOST_MS - 1}", field=name)
        return int(value)
    written = _WRITTEN.fullmatch(value)
    found = None if written is None else _written_ms(written)
    if found is None:
        if written is not None and not (written[6] or written[7]):
            raise RequestError(f"{name} is {shown(value)}; its zone is needed, such as Z or +02:00", field=name)
        raise RequestError(f"{name} is {shown(value)}; {words}{_NEEDED} is needed", field=name)
    return max(0, found)


def shown(value: str) -> str:
    """Return at most 60 characters of a value, quoted for a message."""
    return repr(value if len(value) <= 60 else value[:57] + "...")


def _written_ms(written: re.Match[str]) -> int | None:
    """Return the matched time; None if there is no such day, hour or zone, or if the zone is missing."""
    day, hour, minute, second, fraction, zulu, sign, zone_hours, zone_minutes = written.groups()
    if not (zulu or sign):
        return None
    leap = second == "60"  # a leap second, which RFC 3339 allows and datetime does not
    zone = timedelta(hours=int(zone_hours or 0), minutes=int(zone_minutes or 0))
    if zone >= timedelta(days=1) or int(zone_minutes or 0) >= 60:
        return None
    with suppress(ValueError):  # there is no such day, or hour
        when = datetime.fromisoformat(f"{day}T{hour}:{minute}:{'59' if leap else second or '00'}+00:00") - _EPOCH
        fraction_ms = -(-int(fraction) * 1000 // 10 ** len(fraction)) if fraction else 0
        return (when + (zone if sign == "-" else -zone)) // _MILLISECOND + 1000 * leap + fraction_ms
    return None
