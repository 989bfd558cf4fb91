"""Decides after which end of a connection to reconnect, and when: the table in docs/protocol.md, "When to reconnect"."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

RESTARTS = 1012
FIRST_PAUSE_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 300  # the limit of `Retry-After`, because the service may be back earlier


class Pause(NamedTuple):
    """How long to wait before reconnecting.

    Attributes:
        least_seconds: the minimum.
        bound_seconds: the first bound of the random addition, which grows with each attempt.
    """

    least_seconds: float = 0.0
    bound_seconds: float = FIRST_PAUSE_SECONDS


SOON = Pause()
CLOSE_CODES: Mapping[int, Pause | None] = {  # None: the next connection would end in the same way
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
_PASSING_STATUSES = frozenset({408, 425, 429})  # below 500: temporary, not a fault of the request
_FINAL_STATUSES = frozenset({501, 505})  # from 500 on: unsupported method or HTTP version


def pause_after(code: int) -> Pause | None:
    """Return how long to wait after a close code; None: do not reconnect. 0 stands for "there was no connection"."""
    return CLOSE_CODES.get(code, None if 4400 <= code < 4500 else SOON)


def is_passing(status: int) -> bool:
    """Return whether a request with this error status may succeed later."""
    return status in _PASSING_STATUSES or (status >= 500 and status not in _FINAL_STATUSES)


def wait_seconds(retry_after: str) -> int:
    """Return the seconds of a `Retry-After`, a number or a date (RFC 9110 section 10.2.3), within bounds; 0 for anything else."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(int(retry_after[:10]), LONGEST_WAIT_SECONDS)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        return 0
    return min(max(round((moment - datetime.now(UTC)).total_seconds()), 0), LONGEST_WAIT_SECONDS)
