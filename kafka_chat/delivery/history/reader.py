"""Reads one chat's partitions for a page of its past."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...chat.resume_cursor import identity_of
from ..audience.wanted_start import Resumed
from ..log.follower import Follower
from ..session.notices import gap_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...chat.loss_cause import LossCause
    from ...chat.names import ChatNames
    from ...chat.partition_key import PartitionKey
    from ...chat.resume_cursor import ResumeCursor
    from ...chat.subscription_change import SubscriptionChange
    from ..audience.wanted_start import Start, Unresumed
    from ..log.follower import LogCursor
    from ..log.page_reads import PageReads
    from ..log.partition_log import PartitionLog
    from ..records.batch import Chunk
    from ..records.formats import View
    from ..session.notices import Gap


class HistoryReader:
    """Follows one chat for a request: a member of the audience that reads, and is woken by news.

    A request that waits for news parks it at the heads of the logs. Then the fan-out shows it what comes as its request sees it,
    rendered once for all that see the same, and it is woken only where there is something in it.

    Attributes:
        follower: its places in the logs.
        only: its chat.
        username: nobody's.
        gaps: what it was told of.
        resumed: where its cursor stands in the topic; None without one.
        over: the service wants it to come to an end.
    """

    __slots__ = ("_begin", "_cursor", "_names", "follower", "gaps", "only", "over", "resumed")

    username = ""

    def __init__(
        self,
        chat: str,
        begin: Unresumed,
        cursor: ResumeCursor | None,
        names: ChatNames,
        *,
        view: View,
        page_reads: PageReads,
    ) -> None:
        """Make one that the `Audience` is to let in.

        Args:
            chat: which it follows.
            begin: where, without a cursor.
            cursor: where it begins; None for none.
            names: chat <-> topic.
            view: what its request sees of a message.
            page_reads: reads what memory does not have.
        """
        self.follower = Follower(self, view, page_reads)
        self.only: Sequence[str] = (chat,)
        self.gaps: list[Gap] = []
        self.resumed: Resumed | None = None
        self.over = False
        self._begin = begin
        self._cursor = cursor
        self._names = names

    def chats(self) -> Mapping[str, SubscriptionChange | None]:
        """See `Member.chats`."""
        return dict.fromkeys(self.only)

    def start(self, topic: str, change: SubscriptionChange | None) -> Start:
        """See `Member.start`."""
        entry = None if self._cursor is None else self._cursor.entry(topic)
        if entry is None:
            return self._begin
        self.resumed = Resumed(entry, self._begin)
        return self.resumed

    def on_gap(self, key: PartitionKey, first_lost: int, first_left: int, cause: LossCause) -> None:
        """See `Owner.on_gap`."""
        self.gaps.append(gap_in(key, self._names, first_lost, first_left, cause))

    async def news(self) -> None:
        """Wait until something changes in what it follows."""
        await self.follower.wait(parked=False)

    def resumes_wholly(self, logs: Sequence[PartitionLog]) -> bool:
        """Whether its cursor names the offset at which it begins in each of these logs, and is of this very topic."""
        if self.resumed is None or not self.resumed.entry.whole:
            return False
        entry = self.resumed.entry
        return all(entry.identity == identity_of(log.key.topic_id) and entry.next(log.key.partition) is not None for log in logs)

    def follows(self, logs: Sequence[PartitionLog]) -> bool:
        """Whether these are the logs of its chat still: none is lost, started over or added."""
        cursors = self.follower.cursors
        return len(cursors) == len(logs) and all((cursor := cursors.get(log.key)) and cursor.log is log for log in logs)

    def move(self, positions: Mapping[PartitionKey, int]) -> None:
        """Have what lies before `positions`, a partition each that it follows."""
        for key, position in positions.items():
            self.follower.cursors[key].position = position

    @property
    def positions(self) -> dict[PartitionKey, int]:
        """Where it is, a partition each."""
        return {key: cursor.position for key, cursor in self.follower.cursors.items()}

    async def wait_for_message(self) -> None:
        """Wait, in logs that it has had all of, until there is a message for it at a cursor, or something else changes."""
        await self.follower.wait(parked=True)

    def take(self, cursor: LogCursor, chunk: Chunk) -> int:
        """See `Owner.take`: what shows it nothing it has had."""
        if chunk.messages:
            self.follower.wake()
        else:
            cursor.position = chunk.next
        return 0

    def on_follow(self, cursor: LogCursor) -> None:
        """See `Owner.on_follow`."""

    def on_unfollow(self, key: PartitionKey) -> None:
        """See `Owner.on_unfollow`."""

    def on_subscribed(self, change: SubscriptionChange) -> None:
        """Do nothing: a page follows its chat, whatever anyone subscribes to."""

    def on_unsubscribed(self, change: SubscriptionChange, positions: Mapping[int, int]) -> None:
        """See `Member.on_unsubscribed`."""

    def finish(self) -> None:
        """Have it wait no longer."""
        self.over = True
        self.follower.wake()
