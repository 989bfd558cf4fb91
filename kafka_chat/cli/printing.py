"""Prints lines on stdout for as long as its reader takes, and can be cancelled meanwhile."""

from __future__ import annotations

import os
import select
import stat
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from typing import TextIO


class Printer:
    """Prints on one stream, whose own buffer stays empty: at exit nobody has to wait for a write that was given up."""

    def __init__(self, stream: TextIO) -> None:
        self._descriptor = stream.fileno()
        self._encoding, self._errors = stream.encoding, stream.errors or "strict"
        self._limiter = trio.CapacityLimiter(1)
        mode = os.fstat(self._descriptor).st_mode
        self._may_wait = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stream.isatty()
        self._is_terminal = stream.isatty()

    async def print(self, line: str) -> None:
        """Print a line, and return once it is taken. Where this is cancelled, a part of it may be.

        Raises:
            BrokenPipeError: the reader has gone.
        """
        data = f"{line}\n".encode(self._encoding, self._errors)
        if self._takes_at_once(len(data)):
            await trio.lowlevel.checkpoint()
            self._write(data)
        else:
            await trio.to_thread.run_sync(self._write, data, limiter=self._limiter, abandon_on_cancel=True)

    def _takes_at_once(self, size: int) -> bool:
        """Return whether a write will not wait. A thread for each line would cost more than all else about it."""
        if not self._may_wait:
            return True
        if self._is_terminal or size > select.PIPE_BUF:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return any(found & (select.POLLOUT | select.POLLERR) for _, found in poll.poll(0))

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # somebody else who has this descriptor does not want to wait
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
