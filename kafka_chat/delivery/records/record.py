"""A Kafka record, as the core takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...chat.resume_cursor import NO_EPOCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...chat.message import LeftOut

HEADER_BYTES = 64  # what a header counts for beside its name and value: so a batch has no more than the loop renders in 2 ms


class Record(NamedTuple):
    """What the core needs of a Kafka record.

    A named tuple, for a burst has a hundred thousand of them. The time is in Unix milliseconds, negative where there is none;
    `unreadable` names what the Kafka client fails on; `epoch` is that of the partition's leader who took the record.
    """

    offset: int
    value: bytes | None
    time_ms: int = -1
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] | None = None
    unreadable: Sequence[LeftOut] = ()
    epoch: int = NO_EPOCH

    @property
    def size(self) -> int:
        """Its bytes, nearly."""
        size = len(self.value or b"") + len(self.key or b"")
        if self.headers:
            size += sum(HEADER_BYTES + len(name) + len(value or b"") for name, value in self.headers)
        return size
