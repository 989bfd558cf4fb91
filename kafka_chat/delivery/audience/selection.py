"""What somebody wants of chats, and from where to where; docs/protocol.md, "Asking for it"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..records.formats import PLAIN, Format, View
from .wanted_start import Rewind

if TYPE_CHECKING:
    from ...chat.resume_cursor import ResumeCursor
    from .wanted_start import Earliest, Latest, Since


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What sockets, streams and pages can be asked for alike. The defaults ask for nothing.

    Attributes:
        cursor: begin after what it stands for.
        start: where to begin without one; None: not said.
        rewind: begin so many messages before the end of a chat, where neither says; 0: no.
        until_ms: nothing of this time or later, Unix, in milliseconds.
        tags: only messages with one of these, or with none.
        senders: only messages from one of these.
    """

    cursor: ResumeCursor | None = None
    start: Latest | Earliest | Since | None = None
    rewind: int = 0
    until_ms: int | None = None
    tags: frozenset[str] | None = None
    senders: frozenset[str] | None = None

    def beginning(self, otherwise: Latest | Earliest) -> Latest | Earliest | Since | Rewind:
        """Return where it begins without a cursor.

        Args:
            otherwise: where nothing is said.
        """
        if self.start is not None:
            return self.start
        return Rewind(self.rewind) if self.rewind else otherwise

    def view(self, format: Format) -> View:
        """Return what is shown of a message: `PLAIN` itself where that is all, which the fan-out knows without comparing."""
        view = View(format=format, tags=self.tags, senders=self.senders)
        return PLAIN if view == PLAIN else view
