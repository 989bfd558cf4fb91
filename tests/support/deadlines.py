"""How long a test waits for what comes soon, until it is clear that it never will."""

from __future__ import annotations

HANG_SECONDS = 60.0  # ends a hang and measures nothing: it takes milliseconds, on a busy machine seconds
