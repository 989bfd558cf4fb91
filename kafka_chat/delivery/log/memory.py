"""One limit, in bytes, for all records in memory."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from sys import getrefcount
from typing import TYPE_CHECKING
from weakref import finalize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..records.batch import Batch

OWN_REFERENCES = 2  # references to an otherwise unused batch: our variable, and the argument of the counting call


class Memory:
    """Counts batches, oldest first, and drops the oldest if there are too many bytes.

    It counts batches at the heads of logs, pages, bytes owed to sockets, and unanswered requests of clients. Nothing
    depends on a batch being in memory: a dropped one is read from Kafka again. A batch that is dropped while a reader uses
    it (a client that is behind, a history page) counts until the reader is done.

    Args:
        limit_bytes: `memory.bytes`.

    Attributes:
        limit_bytes: the limit.
        held_bytes: bytes of batches in logs.
        lent_bytes: bytes of dropped batches that readers still use.
        owed_bytes: bytes owed to clients, and of their unanswered requests.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.lent_bytes = 0
        self.owed_bytes = 0
        self._held: OrderedDict[Batch, tuple[Callable[[Batch], None], int]] = OrderedDict()

    @property
    def used_bytes(self) -> int:
        """All bytes that count towards the limit."""
        return self.held_bytes + self.lent_bytes + self.owed_bytes

    def hold(self, batch: Batch, forget: Callable[[Batch], None]) -> None:
        """Count `batch`; `forget(batch)` is called when it is dropped, and must release the owner's reference."""
        size = batch.size
        self._held[batch] = forget, size
        self.held_bytes += size
        self._trim()

    def recount(self, batch: Batch) -> None:
        """Count `batch` again, after it may have been rendered in another format. No error if it is not held."""
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
        """Make `batch` the last one to drop, because it was just used."""
        if batch in self._held:
            self._held.move_to_end(batch)

    def release(self, batch: Batch) -> None:
        """Stop counting `batch`: its owner has released it."""
        held = self._held.pop(batch, None)
        if held is not None:
            self.held_bytes -= held[1]

    @contextmanager
    def owing(self, size: int) -> Iterator[None]:
        """Count `size` bytes owed to a socket while the block runs."""
        self.owe(size)
        try:
            yield
        finally:
            self.owe(-size)

    def owe(self, size: int) -> None:
        """Count `size` more bytes owed to a client, or of its unanswered requests; fewer if negative."""
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
