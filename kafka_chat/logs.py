"""How log lines look: UTC time, level, logger, sentence; on stderr."""

from __future__ import annotations

import logging
import time


def log_to_stderr(logger: str | None = None) -> None:
    """Send log lines to stderr, from INFO up, unless somebody has set up logging already.

    Args:
        logger: only those of this logger; None for all of the process.
    """
    chosen = logging.getLogger(logger)
    if chosen.hasHandlers():
        return
    handler = logging.StreamHandler()
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    chosen.addHandler(handler)
    chosen.setLevel(logging.INFO)
