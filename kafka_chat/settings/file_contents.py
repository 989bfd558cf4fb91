"""Reads a whole file, or a pipe, of bounded size and in bounded time."""

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
    """Return all of it.

    A pipe (`/dev/stdin`, `<(command)`, a FIFO) is waited for; a device, such as a terminal, too.

    Args:
        path: of a file, a pipe or a device.
        most: bytes.
        seconds: how long a pipe may take until its end.

    Raises:
        OSError: it cannot be read.
        SettingsError: it is larger, takes longer, or is a pipe with nothing in it.
    """
    # Without O_NONBLOCK the open of a FIFO waits for a writer, without a bound.
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
    if stat.S_ISFIFO(mode) and not found:  # to go on without settings could mean to serve the wrong brokers
        raise SettingsError(f"{path} is a pipe with nothing in it: what writes to it has failed, or it has been read before")
    return bytes(found)


def _piece(path: Path, descriptor: int, until: float, seconds: float, *, is_file: bool) -> bytes:
    """Return the next bytes; none at the end."""
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
