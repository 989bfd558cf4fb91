"""Limits the subscription records that this instance writes: each is kept for good, and read at every start."""

from __future__ import annotations

from math import ceil

import trio

from ...errors import Overloaded

BURST_SECONDS = 10.0  # the records of this many seconds may be written at once, after as long without any


class RecordRate:
    """A token bucket for all clients together.

    Args:
        records_per_second: the limit.
    """

    def __init__(self, records_per_second: int) -> None:
        self._rate = records_per_second
        self._tokens = self._rate * BURST_SECONDS
        self._since = trio.current_time()

    def take(self, records: int) -> None:
        """Count records that are about to be written. A call is one batch, so it may borrow tokens of the future.

        Raises:
            Overloaded: too many were written; the error says when to try again.
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
