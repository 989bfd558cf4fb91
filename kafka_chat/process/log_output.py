"""How log lines look: UTC time, level, process where there are several, logger, sentence; on stderr."""

from __future__ import annotations

import logging
import os
import time


def log_to_stderr(logger: str | None = None, *, process: str | None = None) -> None:
    """Send log lines to stderr, from INFO up, unless somebody has set up logging already.

    Args:
        logger: only those of this logger; None for all of the process.
        process: what it is among those that log to the same place; its pid is written beside it.
    """
    chosen = logging.getLogger(logger)
    if chosen.hasHandlers():
        return
    handler = logging.StreamHandler()
    who = f"{process}[{os.getpid()}] " if process is not None else ""
    formatter = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)s {who}%(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    chosen.addHandler(handler)
    chosen.setLevel(logging.INFO)
