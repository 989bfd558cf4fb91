"""A session's place in one log, and what a log's readers can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...chat.loss_cause import LossCause
    from ...chat.partition_key import PartitionKey
    from ..ports import Sink, SubscriptionChange
    from ..records.batch import Chunk
    from ..records.formats import Bound
    from .page_reads import PageRead
    from .partition_log import PartitionLog


class Follower(Protocol):
    """A session, as the fan-out and the audience see it. Plain functions, which may be called at any time.

    Attributes:
        cursors: its place in each partition that it follows.
        parked: whether it may be offered to.
        messages: sent so far.
        bytes_sent: the frames of those.
        sink: where it writes.
    """

    cursors: dict[PartitionKey, LogCursor]
    parked: bool
    messages: int
    bytes_sent: int
    sink: Sink

    def wake(self) -> None:
        """Look at the cursors again; until then nothing is offered."""

    def take(self, cursor: LogCursor, chunk: Chunk) -> None:
        """Take `chunk`, which begins at `cursor`; asked only of `PartitionLog.takers`, and only while they are parked."""

    def follow(self, log: PartitionLog, position: int, *, afresh: bool = False) -> None:
        """Deliver `log` from `position` on, but nothing that it has had, unless the offsets began `afresh`."""

    def unfollow(self, log: PartitionLog) -> None:
        """Deliver nothing more of `log`. No error if it is not followed."""

    def rewind(self, log: PartitionLog, messages: int) -> None:
        """Move the new cursor in `log` back by so many messages."""

    def on_gap(self, key: PartitionKey, first_lost: int, first_left: int, cause: LossCause) -> None:
        """Messages that were due are gone."""

    def on_subscribed(self, change: SubscriptionChange) -> None:
        """Its user subscribed to a chat."""

    def on_unsubscribed(self, chat: str, positions: Mapping[int, int]) -> None:
        """Its user unsubscribed from a chat, which was delivered up to these positions, a partition each."""


class LogCursor:
    """One session's place in one log.

    Attributes:
        position: the next offset that the client gets.
        page: the page read that it waits for.
        bound: where its client ends; None: nowhere, or it is not known yet.
    """

    __slots__ = ("bound", "log", "page", "position", "session")

    def __init__(self, session: Follower, log: PartitionLog, position: int) -> None:
        self.session = session
        self.log = log
        self.position = position
        self.page: PageRead | None = None
        self.bound: Bound | None = None

    @property
    def epoch(self) -> int:
        """The leader epoch of the record before its position, or a later one of this log; `NO_EPOCH` where none is known."""
        return self.log.epochs.before(self.position)
