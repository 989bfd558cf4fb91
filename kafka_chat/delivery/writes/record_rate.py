"""How many subscription records this instance writes a second, for all clients together: each is kept for good, and read at each start."""

from __future__ import annotations

from math import ceil

import trio

from ...errors import Overloaded

BURST_SECONDS = 10.0  # records of so long may be written at once, after as long without any


class RecordRate:
    """A token bucket.

    Args:
        records_per_second: as limited.
    """

    def __init__(self, records_per_second: int) -> None:
        self._rate = records_per_second
        self._tokens = self._rate * BURST_SECONDS
        self._since = trio.current_time()

    def take(self, records: int) -> None:
        """Count records that are about to be written. A call is one batch, so its last records may be borrowed from later.

        Raises:
            Overloaded: too many were written; says when to try again.
        """
        now = trio.current_time()
        self._tokens = min(self._rate * BURST_SECONDS, self._tokens + self._rate * (now - self._since))
        self._since = now
        if self._tokens <= 0:
            raise Overloaded(
                f"subscriptions change too fast: over {self._rate} records a second "
                "(limits.subscription_records_per_second); try again later",
                retry_after_seconds=max(1, ceil(-self._tokens / self._rate)),
            )
        self._tokens -= records
