"""What a page of a chat's past is to have, and what it has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..audience.starts import EARLIEST, LATEST, Earliest, Latest, Rewind, Since

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...chat.resume_cursor import ResumeCursor
    from ..session.notices import Gap

PAGE_BYTES = 1 << 20  # of messages; the one that reaches it is the last


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """What a page is to have.

    Attributes:
        chat: whose.
        cursor: where it begins.
        start: where it begins without one; None: not said.
        rewind: begin so many messages before the end, where neither says; 0: no.
        until_ms: nothing of this time or later, Unix, in milliseconds.
        tags: only messages with one of these, or with none.
        senders: only messages from one of these.
        limit: how many messages.
        backward: those before the beginning, not those after it.
        wait_seconds: how long to wait for news where a forward page would be empty.
    """

    chat: str
    cursor: ResumeCursor | None = None
    start: Latest | Earliest | Since | None = None
    rewind: int = 0
    until_ms: int | None = None
    tags: frozenset[str] | None = None
    senders: frozenset[str] | None = None
    limit: int = 100
    backward: bool = False
    wait_seconds: float = 0.0

    @property
    def begin(self) -> Latest | Earliest | Since | Rewind:
        """Where it begins without a cursor."""
        if self.start is not None:
            return self.start
        if self.rewind:
            return Rewind(self.rewind)
        return LATEST if self.backward else EARLIEST

    @property
    def last_before_it(self) -> PageQuery:
        """What finds its beginning where that is so many messages before the end."""
        return replace(self, backward=True, until_ms=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page.

    Attributes:
        messages: JSON, in the form of v1, oldest first.
        gaps: what was due and is gone.
        next: the cursor after it.
        prev: the cursor before it.
        end: nothing more is there now in its direction.
        closed: it stays the same for as long as its messages are there.
        compacted: compaction may take messages out of its middle.
    """

    messages: Sequence[bytes]
    gaps: Sequence[Gap]
    next: str
    prev: str
    end: bool
    closed: bool
    compacted: bool
