"""Makes sure that stdin, stdout and stderr exist, and that writing to the last two never waits for a reader."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TextIO

from .line_writer import LineWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLUSH_SECONDS = 1.0  # at the end; an active reader needs milliseconds
LAST_SECONDS = 0.2  # when the process ends at once

_closed: set[str] = set()  # names of the streams that `fill_closed` has opened


class LineStream(io.TextIOBase):
    """Replaces `sys.stdout` or `sys.stderr`: passes whole lines to a `LineWriter`.

    This covers everything written by Python: log lines of all libraries, warnings, tracebacks. It does not cover what C code
    writes to the descriptor, such as a failed assertion.

    Attributes:
        writer: writes the lines.
    """

    def __init__(self, stream: TextIO, *, name: str) -> None:
        """Wrap `stream`.

        Args:
            stream: the replaced stream, which has a descriptor.
            name: `stdout` or `stderr`.
        """
        self.writer = LineWriter(stream.fileno(), name=f"kafka-chat {name}", note=lambda count: f"{_dropped_words(count, name)}\n".encode())
        self._stream = stream
        self._lock = threading.RLock()
        self._begun: list[str] = []  # the parts of an unfinished line

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute there
        """The encoding of the replaced stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str:  # type: ignore[override,mutable-override]  # likewise
        """The error handler of the encoding."""
        return "backslashreplace"

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._stream.isatty()

    def write(self, text: str) -> int:
        """Queue text once its line ends, or at `flush`."""
        with self._lock:
            self._begun.append(text)
            if "\n" in text:
                lines, newline, begun = "".join(self._begun).rpartition("\n")
                self._begun = [begun] if begun else []
                self.writer.put(self._encoded(lines + newline))
        return len(text)

    def flush(self) -> None:
        """Queue an unfinished line, too. Does not wait."""
        with self._lock:
            begun, self._begun = "".join(self._begun), []
            self.writer.put(self._encoded(begun))

    def _encoded(self, text: str) -> bytes:
        return text.encode(self.encoding, self.errors)


def unblock(*names: str) -> Callable[[], None]:
    """Make writes to `stdout` and `stderr` independent of their readers.

    Args:
        names: which of the two; one that is closed, or that a test has replaced, stays unchanged.

    Returns:
        A function that writes the rest and restores them. If that takes more than `FLUSH_SECONDS`, they are not restored,
        so that the exit does not wait for them, either.
    """
    taken: list[tuple[str, TextIO, LineStream]] = []
    for name in names:
        stream: TextIO | None = getattr(sys, name)
        if stream is not None and _has_descriptor(stream):
            unblocked = LineStream(stream, name=name)
            setattr(sys, name, unblocked)
            _redirect_log_lines(stream, unblocked)
            taken.append((name, stream, unblocked))

    def put_back() -> None:
        deadline = time.monotonic() + FLUSH_SECONDS
        for _, _, unblocked in taken:
            unblocked.flush()
        for name, stream, unblocked in taken:
            # One that is stuck must not use up the other's time, because the final traceback is still to come.
            if unblocked.writer.close(max(deadline - time.monotonic(), LAST_SECONDS)):
                _redirect_log_lines(unblocked, stream)
                setattr(sys, name, stream)

    return put_back


@contextmanager
def unblocked(*names: str) -> Iterator[None]:
    """Do `unblock` while the block runs."""
    put_back = unblock(*names)
    try:
        yield
    finally:
        put_back()


def exit_now(code: int) -> NoReturn:
    """End the process with `os._exit`, after writing the queued lines."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, LineStream):
            stream.flush()
            stream.writer.flush(LAST_SECONDS)
    os._exit(code)


def fill_closed() -> None:
    """Open descriptors 0 to 2 on /dev/null if they are closed.

    Otherwise the next file or socket would get one of these numbers, and text for stderr could reach a client. `was_closed` says
    afterwards which were closed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # returns the lowest free number: this one
            os.set_inheritable(opened, True)  # noqa: FBT003 - the standard library's; for workers
            _closed.add(name)
            if getattr(sys, name) is None:
                setattr(sys, name, os.fdopen(opened, "r" if number == 0 else "w", closefd=False))


def was_closed(name: str) -> bool:
    """Return whether `stdin`, `stdout` or `stderr` was closed when this process began, as far as `fill_closed` has seen it."""
    return name in _closed


def _has_descriptor(stream: TextIO) -> bool:
    try:
        stream.fileno()
    except (OSError, ValueError):
        return False
    return True


def _redirect_log_lines(before: TextIO | LineStream, after: TextIO | LineStream) -> None:
    """Redirect log lines that go to one stream, as hypercorn's command sends them, to another."""
    loggers = [logging.getLogger(), *(found for found in logging.Logger.manager.loggerDict.values() if isinstance(found, logging.Logger))]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if isinstance(handler, logging.StreamHandler) and handler.stream is before:
            handler.setStream(after)


def _dropped_words(count: int, name: str) -> str:
    lines = "1 line was" if count == 1 else f"{count} lines were"
    return f"kafka-chat: {lines} dropped: nobody read {name}, or it could not be written"
