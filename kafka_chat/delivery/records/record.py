"""A Kafka record, as the core receives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...chat.resume_cursor import NO_EPOCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...chat.message import LeftOut

HEADER_BYTES = 64  # the overhead counted per header, so that a batch has no more headers than are rendered in 2 ms


class Record(NamedTuple):
    """The parts of a Kafka record that the core needs.

    A named tuple, because a burst has a hundred thousand of them. The time is in Unix milliseconds, negative if there is none;
    `unreadable` names the parts that the Kafka client cannot read; `epoch` is the leader epoch of its batch.
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
        """Its approximate number of bytes."""
        size = len(self.value or b"") + len(self.key or b"")
        if self.headers:
            size += sum(HEADER_BYTES + len(name) + len(value or b"") for name, value in self.headers)
        return size
