"""Writes lines to a descriptor in a separate thread, so that a slow reader blocks nothing else.

`put` never waits. Up to `HELD_BYTES` of unwritten lines are kept. Beyond that, lines are dropped and counted until half of the kept
ones are written; then a line says how many were dropped. A blocked write cannot be cancelled, so the thread is a daemon, which does
not keep the process alive.
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

HELD_BYTES = 1 << 20  # about 7,000 lines: enough for 3,000 clients that reconnect while a log shipper restarts
WRITE_BYTES = 1 << 16  # what a pipe takes at once
END_SECONDS = 0.1  # for the thread to end once it has nothing to write
STALLED = "stalled"  # why lines were dropped: the reader does not read
FAILED = "failed"  # or: the write failed, because the disk is full or the reader gone

_SAY_DROPPED = b""  # among the lines: stands for the line that says how many were dropped


class LineWriter:
    """Writes lines to one descriptor, in the order of `put`, which any thread may call.

    Attributes:
        note: returns the line that says how many lines were dropped.
    """

    def __init__(self, descriptor: int, *, name: str, note: Callable[[int], bytes]) -> None:
        """Start the thread.

        Args:
            descriptor: the descriptor, which is not closed.
            name: the name of the thread.
            note: the attribute.
        """
        self.note = note
        self._descriptor = descriptor
        # Held briefly, never during a write. Reentrant, because a finalizer or a signal handler may log in the same thread
        # while it is held.
        self._lock = threading.RLock()
        self._wake: SimpleQueue[None] = SimpleQueue()  # its put is reentrant, unlike a Condition
        self._lines: deque[bytes | threading.Event] = deque()
        self._held_bytes = 0
        self._writing = False
        self._ending = False
        self._dropping = False
        self._failed = False  # whether the last write failed
        self._cut = False  # whether it failed in the middle of a line
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
                if not self._held_bytes:  # larger than the limit
                    self._resume()
                return
            self._held_bytes += len(lines)
            self._add(lines)

    def flush(self, seconds: float) -> bool:
        """Wait, at most `seconds`, until everything put before is written or dropped; return whether it is."""
        reached = threading.Event()
        with self._lock:
            self._add(reached)
        return reached.wait(seconds)

    def close(self, seconds: float) -> bool:
        """Write the rest within `seconds`, and end the thread; return whether it has ended.

        If not, it blocks in a write until the process ends, which affects nothing else.
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
        """Return the next lines, as many as are written at once; None if there are none."""
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
        """Subtract the bytes that are written or dropped."""
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
        """Write lines, blocking; return whether that succeeded."""
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
