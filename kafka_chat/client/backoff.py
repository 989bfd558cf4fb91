"""How long a client stays away before it comes again."""

from __future__ import annotations

from dataclasses import dataclass
from random import uniform

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0

# What the service asks for beyond that: docs/protocol.md, "Close codes". The least pause, and the least bound of what chance adds.
_AFTER = {1011: (1.0, FIRST_PAUSE_SECONDS), 1012: (0.0, 5.0), 1013: (2.0, 5.0)}


@dataclass(slots=True)
class Pauses:
    """Full-jitter back-off: any pause up to a bound that doubles, so that who left together does not come back together."""

    bound_seconds: float = FIRST_PAUSE_SECONDS

    def next(self, *, after: int = 0) -> float:
        """Return how many seconds to wait before the next try.

        Args:
            after: the close code; 0 where there was no connection.
        """
        least, least_bound = _AFTER.get(after, (0.0, 0.0))
        pause = least + uniform(0, max(self.bound_seconds, least_bound))
        self.bound_seconds = min(LONGEST_PAUSE_SECONDS, self.bound_seconds * 2)
        return pause

    def reset(self) -> None:
        """A try has succeeded."""
        self.bound_seconds = FIRST_PAUSE_SECONDS
