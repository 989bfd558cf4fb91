"""How long a request that needs Kafka may take before its answer is "come again"."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ...errors import BrokerUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER_SECONDS = 5.0  # for a whole request
# A publisher gives a record up 3.5 s after it got it (kafka/publish.py). What is written later than this could come true
# after the request was refused.
WRITE_BY_SECONDS = 1.5


class Due:
    """When the answer of one request is due."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._began = trio.current_time()

    def check_may_write(self) -> None:
        """Raise `BrokerUnreachable` if it is too late to begin to write."""
        took = trio.current_time() - self._began
        if took > WRITE_BY_SECONDS:
            raise BrokerUnreachable(f"{self._doing} failed: the brokers took {took:.1f} s to answer; nothing was written")


@contextmanager
def answer_due(doing: str) -> Iterator[Due]:
    """Bound a request.

    Args:
        doing: what it does, for the error.

    Raises:
        BrokerUnreachable: the block took longer than 5 s, and was cancelled.
    """
    with trio.move_on_after(ANSWER_SECONDS) as scope:
        yield Due(doing)
    if scope.cancelled_caught:
        raise BrokerUnreachable(f"{doing} failed: no answer within {ANSWER_SECONDS:g} s")
