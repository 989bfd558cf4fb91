"""Turns what trio logs where the system gives no descriptor for one more connection into an event."""

from __future__ import annotations

import errno
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...telemetry.metrics import Telemetry

_TRIO = logging.getLogger("trio.serve_listeners")  # which tries again ten times a second, with a traceback each time


@contextmanager
def telling_accept_errors(telemetry: Telemetry) -> Iterator[None]:
    """Turn what trio's accept loop logs into an event, whose lines are few, for as long as the block lasts."""

    def turn(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, OSError):
            return True
        telemetry.accept_failed(reason=errno.errorcode.get(error.errno or 0, "unknown"))
        return False

    _TRIO.addFilter(turn)
    try:
        yield
    finally:
        _TRIO.removeFilter(turn)
