"""Writes lines to a descriptor in its own thread, so that a slow reader holds nobody up.

`put` never waits. Lines that the descriptor does not take are kept, up to `HELD_BYTES`. Beyond that lines are dropped and counted,
until half of the kept ones have been taken; then a line says how many. A blocked write cannot be cancelled, so the
thread is a daemon, which does not keep the process alive.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HELD_BYTES = 1 << 20  # some 7,000 lines: as many as 3,000 clients write that come back while a log shipper restarts
WRITE_BYTES = 1 << 16  # what a pipe takes at once
END_SECONDS = 0.1  # for the thread to end once it has nothing to write
STALLED = "stalled"  # why lines were dropped: nobody takes them,
FAILED = "failed"  # or the write ended with an error: the disk is full, the reader is gone

_SAY_DROPPED = b""  # among the lines: here goes the one that says how many were dropped


class LineWriter:
    """Lines on their way to one descriptor, in the order in which they were put. Any thread may put some.

    Attributes:
        note: gives the line that says how many lines were dropped.
    """

    def __init__(self, descriptor: int, *, name: str, note: Callable[[int], bytes]) -> None:
        """Begin to write.

        Args:
            descriptor: where to; it stays open.
            name: of the thread.
            note: as the attribute.
        """
        self.note = note
        self._descriptor = descriptor
        # Held for moments and never over a write. Garbage that is collected inside it may have something to say, and so
        # may a signal: they enter it again, in the same thread.
        self._lock = threading.RLock()
        self._wake: SimpleQueue[None] = SimpleQueue()  # its put may be entered again, too, which that of a Condition may not
        self._lines: deque[bytes | threading.Event] = deque()
        self._held_bytes = 0
        self._writing = False
        self._ending = False
        self._dropping = False
        self._failed = False  # whether the last write has
        self._cut = False  # whether that was in the middle of a line
        self._dropped = {STALLED: 0, FAILED: 0}
        self._untold = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def dropped(self) -> dict[str, int]:
        """Return how many lines were dropped so far, by reason."""
        with self._lock:
            return dict(self._dropped)

    def put(self, lines: bytes) -> None:
        """Queue whole lines, or drop all of them."""
        if not lines:
            return
        with self._lock:
            if self._dropping or self._held_bytes + len(lines) > HELD_BYTES:
                self._dropping = True
                self._count(STALLED, lines)
                if not self._held_bytes:  # larger than all that may be kept
                    self._resume()
                return
            self._held_bytes += len(lines)
            self._add(lines)

    def flush(self, seconds: float) -> bool:
        """Wait, with a time limit, until everything put before is written or dropped; return whether it is."""
        reached = threading.Event()
        with self._lock:
            self._add(reached)
        return reached.wait(seconds)

    def close(self, seconds: float) -> bool:
        """Write what is left, with a time limit, and end the thread; return whether it has ended.

        If not, it hangs in a write for the life of the process, and everything else goes on.
        """
        deadline = time.monotonic() + seconds
        if not self.flush(seconds):
            return False
        with self._lock:
            self._ending = True
            self._wake.put(None)
        self._thread.join(max(deadline - time.monotonic(), END_SECONDS))
        return not self._thread.is_alive()

    def _add(self, item: bytes | threading.Event) -> None:
        self._lines.append(item)
        if not self._writing:
            self._writing = True
            self._wake.put(None)

    def _count(self, reason: str, lines: bytes) -> None:
        count = lines.count(b"\n")
        self._dropped[reason] += count
        self._untold += count

    def _resume(self) -> None:
        self._dropping = False
        self._add(_SAY_DROPPED)

    def _run(self) -> None:
        while True:
            self._wake.get()
            while (item := self._next()) is not None:
                if isinstance(item, threading.Event):
                    item.set()
                    continue
                if (self._failed or not item) and not self._say_dropped():
                    with self._lock:
                        self._count(FAILED, item)
                elif item:
                    self._write(item)
                self._settle(len(item))
            if self._ending:
                return

    def _next(self) -> bytes | threading.Event | None:
        """Return what is next: lines, as many as are written at once; None if there is nothing."""
        with self._lock:
            if not self._lines:
                self._writing = False
                return None
            item = self._lines.popleft()
            if isinstance(item, threading.Event) or not item:
                return item
            batch = bytearray(item)
            while self._lines and len(batch) < WRITE_BYTES:
                following = self._lines[0]
                if isinstance(following, threading.Event) or not following:
                    break
                batch += following
                self._lines.popleft()
            return bytes(batch)

    def _settle(self, size: int) -> None:
        """Give back the room of what is written, or dropped."""
        with self._lock:
            self._held_bytes -= size
            if self._dropping and self._held_bytes <= HELD_BYTES // 2:
                self._resume()

    def _say_dropped(self) -> bool:
        """Write how many lines were dropped since the last report; return False if that write failed."""
        with self._lock:
            count = self._untold
        if not count:
            return True
        if not self._write(self.note(count), counted=False):
            return False
        with self._lock:
            self._untold -= count
        return True

    def _write(self, lines: bytes, *, counted: bool = True) -> bool:
        """Write lines, however long that takes; return whether that succeeded."""
        whole = b"\n" + lines if self._cut else lines
        left = memoryview(whole)
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left[:WRITE_BYTES]) :]
                except BlockingIOError:  # another process that shares this descriptor has made it non-blocking
                    _wait_writable(self._descriptor)
        except OSError:
            written = len(whole) - len(left)
            self._failed = True
            self._cut = self._cut if not written else not whole[:written].endswith(b"\n")
            if counted:
                with self._lock:
                    self._count(FAILED, whole[written:])
            return False
        self._failed = self._cut = False
        return True


def _wait_writable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
