"""A cursor that a client sends in a body or a frame, where it may be long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...chat.resume_cursor import CursorParser
from ...loop_sharing import Turn

if TYPE_CHECKING:
    from ...chat.resume_cursor import ResumeCursor


async def parse_in_turns(text: str) -> ResumeCursor:
    """Parse a cursor, and share the loop meanwhile.

    Raises:
        RequestError: it is none.
    """
    parser = CursorParser(text)
    turn = Turn()
    for _ in parser:
        await turn.share()
    return parser.cursor
