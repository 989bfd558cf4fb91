"""Formats log lines (UTC time, level, process if there are several, logger, sentence) for stderr, at limited rates."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from typing import TextIO

from ..telemetry.events import LINES_DROPPED, LINES_LEFT_OUT, Event
from ..telemetry.lines import Rates, Value, left_out_fields, line_of
from .standard_streams import LineStream

# Per logger and template, so that no library fills the disk. Events have their own rates (`telemetry/events.py`).
LINES_AT_ONCE = 10
LINES_A_SECOND = 1
TEMPLATE_CHARACTERS = 100  # of a template that are compared and shown; some libraries put the whole text there


class LogOutput(logging.StreamHandler[TextIO]):
    """Writes log lines to stderr, each kind at a limited rate."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(formatter)
        self._rates = Rates(time.monotonic)
        if isinstance(sys.stderr, LineStream):
            sys.stderr.writer.note = lambda count: f"{self._line(LINES_DROPPED, {'lines': count})}\n".encode()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, unless there were too many of its kind."""
        for kind, reason, count in self._rates.due():
            super().emit(_record(LINES_LEFT_OUT, left_out_fields(kind, reason, count)))
        try:
            template = str(record.msg)[:TEMPLATE_CHARACTERS]
        except Exception:  # noqa: BLE001 - formatting a logged object may raise anything
            self.handleError(record)  # like logging's handlers
            return
        if hasattr(record, "rated") or self._rates.take(record.name, template, lines_a_second=LINES_A_SECOND, lines_at_once=LINES_AT_ONCE):
            super().emit(record)

    def dropped(self) -> dict[str, int]:
        """Return how many lines were not written, to stdout or stderr, by reason."""
        found = Counter({"rate": self._rates.left_out})
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, LineStream):
                found.update(stream.writer.dropped())
        return found

    def _line(self, event: Event, fields: dict[str, Value]) -> str:
        return self.format(_record(event, fields))


def log_to_stderr(logger: str | None = None, *, process: str | None = None) -> LogOutput:
    """Send log lines from INFO up to stderr, unless logging is configured already.

    Args:
        logger: only the lines of this logger; None: all lines of the process.
        process: a name that distinguishes processes with the same stderr; its pid is written beside it.

    Returns:
        The handler.
    """
    who = f"{process}[{os.getpid()}] " if process is not None else ""
    formatter = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)s {who}%(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    output = LogOutput(formatter)
    chosen = logging.getLogger(logger)
    if not chosen.hasHandlers():
        chosen.addHandler(output)
        chosen.setLevel(logging.INFO)
    return output


def _record(event: Event, fields: dict[str, Value]) -> logging.LogRecord:
    return logging.LogRecord("kafka_chat", event.level, __file__, 0, line_of(event, fields), None, None)
