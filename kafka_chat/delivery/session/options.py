"""A client's options when it connected; docs/protocol.md, "Asking for it"."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from sys import getsizeof

from ..audience.selection import Selection
from ..audience.wanted_start import Latest
from ..records.formats import Format

CHAT_BYTES, CHAT_COPIES = 1_600, 3  # memory of a chat that only one client names, besides the copies of its name; measured


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions(Selection):
    """The defaults are those of a client without options.

    Attributes:
        format: the format of messages.
        chats: only these chats, subscribed or not; empty: those that the user follows.
        came_with: `cursor` as the client of an event stream gave it, if it may come back in a header; else "".
        cursor_in_frame: whether the cursor comes as the first frame.
        start_in_frame: whether a first frame comes, with a token, a cursor, or both.
        heartbeat_seconds: the interval of heartbeats.
    """

    format: Format = Format.PLAIN
    chats: tuple[str, ...] = ()
    came_with: str = field(default="", compare=False)
    cursor_in_frame: bool = False
    start_in_frame: bool = False
    heartbeat_seconds: float | None = None

    @property
    def is_default(self) -> bool:
        """Whether no option is given."""
        return self == DEFAULT_OPTIONS

    @property
    def begins_by_frame(self) -> bool:
        """Whether the client's first frame is to be waited for."""
        return self.cursor_in_frame or self.start_in_frame

    @property
    def held_bytes(self) -> int:
        """How many bytes a session keeps of the options, until it has begun or until its end."""
        names = sum(CHAT_BYTES + CHAT_COPIES * len(chat) for chat in self.chats)
        filters = sum(map(getsizeof, chain(self.tags or (), self.senders or ())))
        return names + filters + (0 if self.cursor is None else self.cursor.held_bytes)

    @property
    def reads_past(self) -> bool:
        """Whether what is asked for may lie in the past."""
        return bool(self.cursor or self.begins_by_frame or self.rewind) or not isinstance(self.start, Latest | None)


DEFAULT_OPTIONS = SessionOptions()
