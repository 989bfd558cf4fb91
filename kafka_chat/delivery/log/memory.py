"""One limit, in bytes, for all that is held of Kafka."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from sys import getrefcount
from typing import TYPE_CHECKING
from weakref import finalize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..records.batch import Batch

OWN_REFERENCES = 2  # of a batch that nobody else has: our variable, and the argument of the call that counts


class Memory:
    """What is held, oldest first; the oldest goes when there is too much.

    Counted are batches at the heads of logs, pages of the past, what sockets are owed, and what clients have asked that is not
    answered yet. Nothing depends on a batch being held: what is gone is read from Kafka again. A batch that has to go while a
    reader still has it in hand (a client that is behind, a page of history) counts until that reader drops it.

    Args:
        limit_bytes: `memory.bytes`.

    Attributes:
        limit_bytes: likewise.
        held_bytes: of batches that logs hold.
        lent_bytes: of batches that only readers still have.
        owed_bytes: that clients are owed, or have asked.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.lent_bytes = 0
        self.owed_bytes = 0
        self._held: OrderedDict[Batch, tuple[Callable[[Batch], None], int]] = OrderedDict()

    @property
    def used_bytes(self) -> int:
        """All that counts."""
        return self.held_bytes + self.lent_bytes + self.owed_bytes

    def hold(self, batch: Batch, forget: Callable[[Batch], None]) -> None:
        """Count `batch`; `forget(batch)` is called when it has to go. The owner then no longer refers to it."""
        size = batch.size
        self._held[batch] = forget, size
        self.held_bytes += size
        self._trim()

    def recount(self, batch: Batch) -> None:
        """Count `batch` again, which may have been rendered in another form since; no error if it is not held."""
        held = self._held.get(batch)
        if held is None:
            return
        forget, counted = held
        size = batch.size
        if size != counted:
            self._held[batch] = forget, size
            self.held_bytes += size - counted
            self._trim()

    def touch(self, batch: Batch) -> None:
        """Make `batch` the last one to go, for it was just used."""
        if batch in self._held:
            self._held.move_to_end(batch)

    def release(self, batch: Batch) -> None:
        """No longer count `batch`: its owner has let it go."""
        held = self._held.pop(batch, None)
        if held is not None:
            self.held_bytes -= held[1]

    @contextmanager
    def owing(self, size: int) -> Iterator[None]:
        """Count `size` bytes that a socket is owed, for as long as the block lasts."""
        self.owe(size)
        try:
            yield
        finally:
            self.owe(-size)

    def owe(self, size: int) -> None:
        """Count `size` bytes more that a client is owed or waits to have answered; fewer where it is negative."""
        self.owed_bytes += size
        self._trim()

    def _trim(self) -> None:
        while self._held and self.used_bytes > self.limit_bytes:
            batch, (forget, size) = self._held.popitem(last=False)
            self.held_bytes -= size
            forget(batch)
            if getrefcount(batch) > OWN_REFERENCES:
                self.lent_bytes += size
                finalize(batch, self._returned, size).atexit = False

    def _returned(self, size: int) -> None:
        self.lent_bytes -= size
