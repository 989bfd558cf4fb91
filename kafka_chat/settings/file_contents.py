"""Reads a whole file or pipe, with limits of size and time."""

from __future__ import annotations

import os
import select
import stat
import time
from typing import TYPE_CHECKING

from ..errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

PIECE = 65_536


def contents(path: Path, most: int, *, seconds: float) -> bytes:
    """Return the whole content.

    Waits for a pipe (`/dev/stdin`, `<(command)`, a FIFO), and for a device such as a terminal.

    Args:
        path: a file, a pipe or a device.
        most: the most bytes.
        seconds: how long a pipe may take until its end.

    Raises:
        OSError: it cannot be read.
        SettingsError: it is larger, takes longer, or is an empty pipe.
    """
    # Without O_NONBLOCK, opening a FIFO waits for a writer, without limit.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        mode = os.fstat(descriptor).st_mode
        found = bytearray()
        until = time.monotonic() + seconds
        while piece := _piece(path, descriptor, until, seconds, is_file=stat.S_ISREG(mode)):
            found += piece
            if len(found) > most:
                raise SettingsError(f"{path} has more than {most:,} bytes; settings need fewer")
    finally:
        os.close(descriptor)
    if stat.S_ISFIFO(mode) and not found:  # without settings we might use the wrong brokers
        raise SettingsError(f"{path} is a pipe with nothing in it: what writes to it has failed, or it has been read before")
    return bytes(found)


def _piece(path: Path, descriptor: int, until: float, seconds: float, *, is_file: bool) -> bytes:
    """Return the next bytes; empty at the end."""
    while True:
        if not is_file:
            left = max(0.0, until - time.monotonic())
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(left * 1000):
                raise SettingsError(f"{path} has not ended within {seconds:g} s; a file, or a pipe that is written and closed, is needed")
        try:
            return os.read(descriptor, PIECE)
        except BlockingIOError:  # another reader was faster
            continue
