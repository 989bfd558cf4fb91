"""Ends a process as soon as its command is done, without the exit handlers of the C libraries in it."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from .standard_streams import exit_now

if TYPE_CHECKING:
    from collections.abc import Callable


def end_with(run: Callable[[], int]) -> NoReturn:
    """Run a command, write what is left of its output, and end the process with its exit code.

    OpenSSL's exit handler frees locks that librdkafka's threads may be using, for a client that cannot reach its brokers ends with the
    process alone: a quarter of the services whose brokers refused TLS ended with SIGSEGV after an orderly shutdown.

    Args:
        run: returns the exit code, or raises `SystemExit` with it, as argparse does. Any other exception ends the process as usual.
    """
    try:
        code = run()
    except SystemExit as ended:
        if not isinstance(ended.code, int):
            raise
        code = ended.code
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # who writes a line writes it out, and says there what went wrong
            stream.flush()
    exit_now(code)
