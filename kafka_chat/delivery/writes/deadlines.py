"""How long a request that needs Kafka may take before it is answered with 503."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ...errors import BrokerUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..timeouts import BrokerTimeouts


class Due:
    """When the answer of one request is due."""

    def __init__(self, doing: str, write_by_seconds: float) -> None:
        self._doing = doing
        self._write_by_seconds = write_by_seconds
        self._began = trio.current_time()

    def check_may_write(self) -> None:
        """Raise `BrokerUnreachable` if it is too late to begin to write."""
        took = trio.current_time() - self._began
        if took > self._write_by_seconds:
            raise BrokerUnreachable(f"{self._doing} failed: the brokers took {took:.1f} s to answer; nothing was written")


@contextmanager
def answer_due(doing: str, timeouts: BrokerTimeouts) -> Iterator[Due]:
    """Bound a request.

    Args:
        doing: what it does, for the error.
        timeouts: how long to wait for brokers.

    Raises:
        BrokerUnreachable: the block took longer, and was cancelled.
    """
    seconds = timeouts.request_seconds
    with trio.move_on_after(seconds) as scope:
        yield Due(doing, timeouts.write_by_seconds)
    if scope.cancelled_caught:
        raise BrokerUnreachable(f"{doing} failed: no answer within {seconds:g} s")
