"""The messages that a client asks for: which, from where, and to where; docs/protocol.md, "Asking for it"."""

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
    """The options that sockets, streams and pages share. The defaults select everything.

    Attributes:
        cursor: begin after it.
        start: where to begin without a cursor; None: not given.
        rewind: begin this many messages before the end of a chat, if neither is given; 0: no.
        until_ms: only messages older than this, Unix milliseconds.
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
            otherwise: where to begin if no option says.
        """
        if self.start is not None:
            return self.start
        return Rewind(self.rewind) if self.rewind else otherwise

    def view(self, format: Format) -> View:
        """Return the view of messages: `PLAIN` itself if it shows everything, which the fan-out recognises by identity."""
        view = View(format=format, tags=self.tags, senders=self.senders)
        return PLAIN if view == PLAIN else view
