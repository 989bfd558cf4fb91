"""The messages of a batch in one format: joined bytes, and where each message ends."""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Rendering:
    """Messages in one format.

    Attributes:
        offsets: the offsets of the messages, ascending.
        data: all messages, joined.
        ends: where each ends in `data`.
    """

    __slots__ = ("data", "ends", "offsets")

    def __init__(self, offsets: array[int], pieces: Sequence[bytes]) -> None:
        self.offsets = offsets
        self.data = b"".join(pieces)
        self.ends = array("q", accumulate(map(len, pieces)))

    def piece(self, index: int) -> bytes:
        """Return one message."""
        return self.data[self.ends[index - 1] if index else 0 : self.ends[index]]

    def pieces(self, begin: int = 0) -> list[bytes]:
        """Return the messages from an index on."""
        return [self.piece(index) for index in range(begin, len(self.offsets))]
