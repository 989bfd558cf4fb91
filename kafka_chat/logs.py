"""How log lines look: UTC time, level, logger, sentence; on stderr."""

from __future__ import annotations

import logging
import time


class _UtcFormatter(logging.Formatter):
    """Formats times as `2026-01-31T12:00:00.123Z`."""

    converter = time.gmtime
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


def log_to_stderr() -> None:
    """Send the log lines of this process to stderr, from INFO up, unless somebody else has set up logging already."""
    handler = logging.StreamHandler()
    handler.setFormatter(_UtcFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
