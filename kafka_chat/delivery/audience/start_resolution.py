"""Resolves a start to the first offset of a session in a log: at once, or when a broker has told."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...chat.loss_cause import LossCause
from .followed_topic import PendingStarts
from .offset_queries import EARLIEST_TIMESTAMP
from .starts import AtOffsets, Earliest, Latest, Resumed, Rewind, Since

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...chat.partition_key import PartitionKey
    from ..log.partition_log import PartitionLog
    from .member import Member
    from .offset_queries import OffsetQueries
    from .starts import Start


class StartResolution:
    """What is asked of the brokers for sessions that begin.

    Args:
        offsets: asks.
        wanted: whether a session still follows a log that is not closed.
    """

    def __init__(self, offsets: OffsetQueries, wanted: Callable[[Member, PartitionLog], bool]) -> None:
        self._offsets = offsets
        self._wanted = wanted
        self._pending: dict[Member, PendingStarts] = {}  # those that wait for a broker's answer

    def begin(self, session: Member, log: PartitionLog, start: Start, head: int) -> None:
        """Give `session` a cursor in `log`, whose head is or was `head` when it came, now or when it is known where."""
        match start:
            case Latest():
                session.follower.follow(log, head)
            case Rewind(messages):
                session.follower.follow(log, head)
                session.rewind(log, messages)
            case AtOffsets(topic_id, offsets):
                if topic_id not in ("", log.key.topic_id) and log.key.partition in offsets:
                    session.follower.on_gap(log.key, offsets[log.key.partition], 0, LossCause.RECREATED)
                session.follower.follow(log, start.offset(log.key))
            case Since(time_ms):
                self._ask(session, log, time_ms, partial(self._begin_at, session, log, head, None))
            case Earliest():
                self._ask(session, log, EARLIEST_TIMESTAMP, partial(self._begin_at, session, log, head, None))
            case Resumed():
                self._resume(session, log, start, head)

    def resolve(self, session: Member, key: PartitionKey) -> None:
        """Where `session` begins in a partition is fixed, or wanted no longer: withdraw what is asked."""
        pending = self._pending.get(session)
        if pending is None:
            return
        question = pending.questions.pop(key, None)
        if question is not None:
            question.withdraw()
        if not pending.questions:
            del self._pending[session]
            pending.resolved.set()

    def pending(self, session: Member) -> PendingStarts | None:
        """Return what `session` waits for; None where that is nothing."""
        return self._pending.get(session)

    def is_placed(self, session: Member, key: PartitionKey) -> bool:
        """Whether it is fixed where `session` begins in a partition, or asked for."""
        pending = self._pending.get(session)
        return key in session.follower.cursors or (pending is not None and key in pending.questions and pending.questions[key].open)

    def forget(self, key: PartitionKey) -> None:
        """Ask nothing more of a partition; who waits for it is told by `resolve`, or begins again."""
        self._offsets.forget(key)

    # Inside

    def _resume(self, session: Member, log: PartitionLog, start: Resumed, head: int) -> None:
        recreated = start.recreated(log.key)
        if recreated is not None:
            session.follower.on_gap(log.key, recreated, 0, LossCause.RECREATED)
        offset = start.offset(log.key)
        if offset is None:
            self.begin(session, log, start.otherwise, head)
        elif offset >= log.head or log.batch_at(offset) is not None:
            session.follower.follow(log, offset)
        else:  # is it still there?
            self._ask(session, log, EARLIEST_TIMESTAMP, partial(self._begin_at, session, log, head, offset))

    def _ask(self, session: Member, log: PartitionLog, time_ms: int, begin: Callable[[int], None]) -> None:
        """Have `begin` called with the offset of a time; see `OffsetQueries`."""
        self._pending.setdefault(session, PendingStarts()).questions[log.key] = self._offsets.put(log.key, time_ms, begin)

    def _begin_at(self, session: Member, log: PartitionLog, head: int, due: int | None, offset: int) -> None:
        """Begin at an offset that a broker told, and not above the head as it was when that was asked.

        Args:
            session: who begins.
            log: where.
            head: as it was.
            due: where its client wants it to begin; then `offset` is the first that is left.
            offset: what the broker told.
        """
        self.resolve(session, log.key)
        if log.key in session.follower.cursors or not self._wanted(session, log):
            return  # it has left meanwhile, and perhaps come again
        begin = min(offset, head) if due is None else max(offset, due)
        if due is not None and begin > due:
            session.follower.on_gap(log.key, due, begin, LossCause.RETENTION)
        session.follower.follow(log, begin)
