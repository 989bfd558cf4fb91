"""A request for a history page, and the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..audience.selection import Selection
from ..audience.wanted_start import EARLIEST, LATEST, Earliest, Latest, Rewind, Since

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..session.notices import Gap

PAGE_BYTES = 1 << 20  # of messages; the message that reaches it is the last


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery(Selection):
    """What a page should contain.

    Attributes:
        chat: the chat.
        limit: the most messages.
        backward: whether to return the messages before the start instead of those after it.
        wait_seconds: how long to wait for a message if a forward page would be empty.
    """

    chat: str
    limit: int = 100
    backward: bool = False
    wait_seconds: float = 0.0

    @property
    def begin(self) -> Latest | Earliest | Since | Rewind:
        """Its start without a cursor."""
        return self.beginning(LATEST if self.backward else EARLIEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page.

    Attributes:
        messages: JSON in the v1 format, oldest first.
        gaps: lost ranges of records that were due.
        next: the cursor after it.
        prev: the cursor before it.
        end: whether nothing more exists now in its direction.
        closed: whether it stays the same for as long as its messages exist.
        compacted: whether compaction may remove messages from its middle.
    """

    messages: Sequence[bytes]
    gaps: Sequence[Gap]
    next: str
    prev: str
    end: bool
    closed: bool
    compacted: bool
