"""Parses a long cursor, from a body or a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...chat.resume_cursor import CursorParser
from ...loop_sharing import Turn

if TYPE_CHECKING:
    from ...chat.resume_cursor import ResumeCursor


async def parse_in_turns(text: str) -> ResumeCursor:
    """Parse a cursor, yielding to other tasks meanwhile.

    Raises:
        RequestError: it is not a cursor.
    """
    parser = CursorParser(text)
    turn = Turn()
    for _ in parser:
        await turn.share()
    return parser.cursor
