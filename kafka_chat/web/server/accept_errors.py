"""Turns trio's log records about failed accepts (out of file descriptors) into telemetry events."""

from __future__ import annotations

import errno
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...telemetry.metrics import Telemetry

_TRIO = logging.getLogger("trio.serve_listeners")  # it retries ten times a second, and logs a traceback each time


@contextmanager
def telling_accept_errors(telemetry: Telemetry) -> Iterator[None]:
    """While the block runs, turn the log records of trio's accept loop into an event, whose log lines are rate-limited."""

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
