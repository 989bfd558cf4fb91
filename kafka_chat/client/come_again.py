"""After which end of a connection a client comes again, and when: the table of docs/protocol.md, "When to reconnect"."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

RESTARTS = 1012
FIRST_PAUSE_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 300  # of what `Retry-After` asks for: a service that is back before is not left alone for hours


class Pause(NamedTuple):
    """How long to stay away.

    Attributes:
        least_seconds: at least.
        bound_seconds: of what chance adds to it, where the bound that grows with each try is lower.
    """

    least_seconds: float = 0.0
    bound_seconds: float = FIRST_PAUSE_SECONDS


SOON = Pause()
CLOSE_CODES: Mapping[int, Pause | None] = {  # None: it would end in the same way again
    1000: None,
    1001: SOON,
    1002: None,
    1003: None,
    1005: SOON,
    1006: SOON,
    1007: None,
    1008: None,
    1009: None,
    1010: None,
    1011: Pause(1.0),
    RESTARTS: Pause(0.0, 5.0),
    1013: Pause(2.0, 5.0),
    1014: SOON,
    1015: SOON,
    4400: None,
    4401: None,
    4403: None,
    4408: SOON,
}
_PASSING_STATUSES = frozenset({408, 425, 429})  # below 500: it is the moment that is wrong, not the request
_FINAL_STATUSES = frozenset({501, 505})  # from 500 on: no such method, no such version of HTTP


def pause_after(code: int) -> Pause | None:
    """Return how long to stay away after a close code; None: for good. 0 stands for "there was no connection"."""
    return CLOSE_CODES.get(code, None if 4400 <= code < 4500 else SOON)


def is_passing(status: int) -> bool:
    """Return whether what was answered by an HTTP status that is no success may be done another time."""
    return status in _PASSING_STATUSES or (status >= 500 and status not in _FINAL_STATUSES)


def wait_seconds(retry_after: str) -> int:
    """Return what a `Retry-After` asks for, seconds or a date (RFC 9110 section 10.2.3), within bounds; 0 for what is neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(int(retry_after[:10]), LONGEST_WAIT_SECONDS)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        return 0
    return min(max(round((moment - datetime.now(UTC)).total_seconds()), 0), LONGEST_WAIT_SECONDS)
