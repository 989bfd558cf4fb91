"""The time limit of a request that needs Kafka, after which it is answered with 503."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ...errors import MAY_BE_WRITTEN, BrokerError, BrokerUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..timeouts import BrokerTimeouts


class Due:
    """When the answer of one request is due, and what holds if it does not come.

    Attributes:
        writing: what it asks for may be in Kafka from here on.
        written: it is in Kafka.
    """

    def __init__(self, doing: str, write_by_seconds: float) -> None:
        self.writing = False
        self.written = False
        self._doing = doing
        self._write_by_seconds = write_by_seconds
        self._began = trio.current_time()

    def check_may_write(self) -> None:
        """Note that writing begins; raise `BrokerUnreachable` if it is too late for that."""
        took = trio.current_time() - self._began
        if took > self._write_by_seconds:
            raise BrokerUnreachable(f"{self._doing} failed: the brokers took {took:.1f} s to answer; nothing was written")
        self.writing = True

    def note_written(self) -> None:
        """Note that Kafka has acknowledged what was written."""
        self.written = True


@contextmanager
def answer_due(doing: str, timeouts: BrokerTimeouts) -> Iterator[Due]:
    """Limit the time of a request.

    Args:
        doing: the operation, for the error.
        timeouts: how long to wait for brokers.

    Raises:
        BrokerUnreachable: the block took longer, and was cancelled; or no broker answered it after it had written. The sentence
            says whether what was asked for is written, where that is so or not known.
    """
    seconds = timeouts.request_seconds
    due = Due(doing, timeouts.write_by_seconds)
    with trio.move_on_after(seconds) as scope:
        try:
            yield due
        except BrokerError as error:
            if not due.written:
                raise
            raise BrokerUnreachable(f"{doing}: it is written, and in force here soon, but {error}") from error
    if scope.cancelled_caught:
        if due.written:
            raise BrokerUnreachable(f"{doing}: it is written, and in force here soon, but not within {seconds:g} s")
        raise BrokerUnreachable(f"{doing} failed: no answer within {seconds:g} s{MAY_BE_WRITTEN if due.writing else ''}")
