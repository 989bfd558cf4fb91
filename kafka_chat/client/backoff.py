"""How long a client waits before it reconnects."""

from __future__ import annotations

from dataclasses import dataclass
from random import uniform

from .come_again import FIRST_PAUSE_SECONDS, SOON, pause_after

LONGEST_PAUSE_SECONDS = 30.0


@dataclass(slots=True)
class Pauses:
    """Full-jitter back-off: a random pause up to a bound that doubles, so that clients do not reconnect all at once."""

    bound_seconds: float = FIRST_PAUSE_SECONDS

    def next(self, *, after: int = 0) -> float:
        """Return how many seconds to wait before the next try.

        Args:
            after: the close code; 0 if there was no connection.
        """
        asked = pause_after(after) or SOON
        pause = asked.least_seconds + uniform(0, max(self.bound_seconds, asked.bound_seconds))
        self.bound_seconds = min(LONGEST_PAUSE_SECONDS, self.bound_seconds * 2)
        return pause

    def reset(self) -> None:
        """Note that a try has succeeded."""
        self.bound_seconds = FIRST_PAUSE_SECONDS
