"""Prints lines on stdout, cancellably, even if the reader is slow; a failure is one sentence."""

from __future__ import annotations

import os
import select
import stat
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import trio

from ..errors import SettingsError
from ..process.standard_streams import was_closed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO


MOST_CHARACTERS = 16 << 20  # what `limits.client_message_bytes` may be at most


class OutputFailed(SettingsError):
    """Exit code 2. Stdout is closed or cannot be written, as on a full disk."""


def check_stdout() -> None:
    """Raise `OutputFailed` if stdout is closed: output would be lost, and might be noted as printed."""
    if was_closed("stdout"):
        raise OutputFailed("stdout is closed; the output goes there")


def print_line(line: str) -> None:
    """Write a line to stdout, and flush it.

    Raises:
        BrokenPipeError: the reader is gone.
        OutputFailed: it cannot be written.
    """
    with failures_as_sentences():
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def read_stdin() -> str:
    """Return everything from stdin.

    Raises:
        SettingsError: it is closed, cannot be read, is too long, or is not text.
    """
    if was_closed("stdin"):
        raise SettingsError("stdin is closed; - reads the text from it")
    try:
        text = sys.stdin.read(MOST_CHARACTERS + 1)
    except OSError as error:
        raise SettingsError(f"stdin cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"stdin is not text in {error.encoding} (byte {error.start})") from error
    if len(text) > MOST_CHARACTERS:
        raise SettingsError(f"stdin has more than {MOST_CHARACTERS:,} characters; a message or a cursor has fewer")
    return text


@contextmanager
def failures_as_sentences() -> Iterator[None]:
    """Convert errors of writing to stdout, except `BrokenPipeError`, into `OutputFailed`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise OutputFailed(f"stdout cannot be written: {error.strerror}") from error


def discard_stdout() -> None:
    """Redirect stdout to nowhere, because flushing its buffer at exit would fail again."""
    with suppress(ValueError):  # it was replaced by something without a descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, sys.stdout.fileno())
        finally:
            os.close(null)


class Printer:
    """Prints on one stream without its buffer, so that the exit does not wait for an abandoned write."""

    def __init__(self, stream: TextIO) -> None:
        self._descriptor = stream.fileno()
        self._encoding, self._errors = stream.encoding, stream.errors or "strict"
        self._limiter = trio.CapacityLimiter(1)
        mode = os.fstat(self._descriptor).st_mode
        self._may_wait = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stream.isatty()
        self._is_terminal = stream.isatty()

    async def print(self, line: str) -> None:
        """Print a line, and return once it is written. After a cancel, a part of it may be written.

        Raises:
            BrokenPipeError: the reader is gone.
            OutputFailed: the stream cannot be written.
        """
        data = f"{line}\n".encode(self._encoding, self._errors)
        with failures_as_sentences():
            if self._takes_at_once(len(data)):
                await trio.lowlevel.checkpoint()
                self._write(data)
            else:
                await trio.to_thread.run_sync(self._write, data, limiter=self._limiter, abandon_on_cancel=True)

    def _takes_at_once(self, size: int) -> bool:
        """Return whether a write will not block. A thread for each line would cost more than everything else."""
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
            except BlockingIOError:  # another process that shares this descriptor has made it non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
