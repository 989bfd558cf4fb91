"""How log lines look: UTC time, level, logger, sentence; on stderr."""

from __future__ import annotations

import logging
import time


class _UtcFormatter(logging.Formatter):
    """Formats times as `2026-01-31T12:00:00.123Z`."""

    converter = time.gmtime
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


def log_to_stderr(logger: str | None = None) -> None:
    """Send log lines to stderr, from INFO up, unless somebody has set up logging already.

    Args:
        logger: only those of this logger; None for all of the process.
    """
    chosen = logging.getLogger(logger)
    if chosen.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_UtcFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    chosen.addHandler(handler)
    chosen.setLevel(logging.INFO)
