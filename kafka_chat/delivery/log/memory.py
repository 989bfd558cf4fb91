"""One limit, in bytes, for all records held in memory."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from sys import getrefcount
from typing import TYPE_CHECKING
from weakref import finalize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..records.batch import Batch

OWN_REFERENCES = 2  # references to a batch that nobody else holds: our variable, and the argument of the counting call


class Memory:
    """What is held, oldest first; the oldest is dropped when there is too much.

    It counts batches at the heads of logs, pages of the past, bytes owed to sockets, and requests of clients that are not
    answered yet. Nothing depends on a batch being held: a dropped one is read from Kafka again. A batch dropped while a
    reader still uses it (a client that is behind, a page of history) counts until that reader is done.

    Args:
        limit_bytes: `memory.bytes`.

    Attributes:
        limit_bytes: the limit.
        held_bytes: of batches that logs hold.
        lent_bytes: of batches that only readers still use.
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
        """Count `batch`; `forget(batch)` is called when it is dropped, and the owner then no longer refers to it."""
        size = batch.size
        self._held[batch] = forget, size
        self.held_bytes += size
        self._trim()

    def recount(self, batch: Batch) -> None:
        """Count `batch` again: it may have been rendered in another form since. No error if it is not held."""
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
        """Make `batch` the last one to be dropped, because it was just used."""
        if batch in self._held:
            self._held.move_to_end(batch)

    def release(self, batch: Batch) -> None:
        """Stop counting `batch`: its owner has released it."""
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
        """Count `size` more bytes that a client is owed or waits to have answered; fewer if negative."""
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
