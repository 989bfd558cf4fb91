"""How many cursors are held, which a session has to forget once it has begun."""

from __future__ import annotations

import gc

from kafka_chat.chat.resume_cursor import ResumeCursor, TopicOffsets


class CursorsHeld:
    """Counts parsed cursors, and places of one in a topic, that came to this process since this was made."""

    def __init__(self) -> None:
        gc.collect()
        self._before = _all()

    def __call__(self) -> int:
        """How many there are now; those in cycles of garbage count."""
        return _all() - self._before


def _all() -> int:
    return sum(isinstance(thing, ResumeCursor | TopicOffsets) for thing in gc.get_objects())
