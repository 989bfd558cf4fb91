"""Reads one chat's partitions for a page of its past."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...chat.resume_cursor import identity_of
from ..audience.cursor_parts import NONE_KEPT
from ..audience.wanted_start import Resumed
from ..log.follower import Follower
from ..session.notices import gap_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...chat.loss_cause import LossCause
    from ...chat.names import ChatNames
    from ...chat.partition_key import PartitionKey
    from ...chat.resume_cursor import ResumeCursor, TopicOffsets
    from ...chat.subscription_change import SubscriptionChange
    from ..audience.wanted_start import Start, Unresumed
    from ..log.follower import LogCursor
    from ..log.page_reads import PageReads
    from ..log.partition_log import PartitionLog
    from ..records.batch import Chunk
    from ..records.formats import View
    from ..session.notices import Gap


class HistoryReader:
    """Follows one chat for a request, as a member of the audience that news wakes.

    A request that waits for news parks it at the heads of the logs. Then the fan-out shows it new messages through its view,
    rendered once for all equal views, and wakes it only if something is in them.

    Attributes:
        follower: its cursors in the logs.
        only: its chat.
        subscriber: nobody.
        kept: nothing.
        gaps: the gaps reported to it.
        resumed: its cursor's part for the topic; None without one.
        over: whether the service wants it to end.
    """

    __slots__ = ("_begin", "_cursor", "_names", "follower", "gaps", "only", "over", "resumed")

    subscriber: str | None = None
    kept: Mapping[str, TopicOffsets] = NONE_KEPT

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
        """Make one that then joins the `Audience`.

        Args:
            chat: which it follows.
            begin: where, without a cursor.
            cursor: where it begins; None for none.
            names: chat <-> topic.
            view: which messages its request sees, and how.
            page_reads: reads what is not in memory.
        """
        self.follower = Follower(self, view, page_reads)
        self.only: Sequence[str] = (chat,)
        self.gaps: list[Gap] = []
        self.resumed: Resumed | None = None
        self.over = False
        self._begin = begin
        self._cursor = cursor
        self._names = names

    def may_follow(self, chat: str) -> bool:
        """Return whether it may read a chat; asked before it was made."""
        return True

    def chats(self) -> Mapping[str, SubscriptionChange | None]:
        """Return the chats that it follows, with their subscriptions."""
        return dict.fromkeys(self.only)

    def start(self, topic: str, change: SubscriptionChange | None) -> Start:
        """Return where it begins in a topic."""
        entry = None if self._cursor is None else self._cursor.entry(topic)
        if entry is None:
            return self._begin
        self.resumed = Resumed(entry, self._begin)
        return self.resumed

    def on_gap(self, key: PartitionKey, first_lost: int, first_left: int, cause: LossCause) -> None:
        """Report messages that were due and are gone."""
        self.gaps.append(gap_in(key, self._names, first_lost, first_left, cause))

    async def news(self) -> None:
        """Wait until something changes in what it follows."""
        await self.follower.wait(parked=False)

    def resumes_wholly(self, logs: Sequence[PartitionLog]) -> bool:
        """Whether its cursor is from this very topic, and names the offset where it begins in each of these logs."""
        if self.resumed is None or not self.resumed.entry.whole:
            return False
        entry = self.resumed.entry
        return all(entry.identity == identity_of(log.key.topic_id) and entry.next(log.key.partition) is not None for log in logs)

    def follows(self, logs: Sequence[PartitionLog]) -> bool:
        """Whether these are still the logs of its chat: none is lost, started over or added."""
        cursors = self.follower.cursors
        return len(cursors) == len(logs) and all((cursor := cursors.get(log.key)) and cursor.log is log for log in logs)

    def move(self, positions: Mapping[PartitionKey, int]) -> None:
        """Move its cursors to `positions`, by partition."""
        for key, position in positions.items():
            self.follower.cursors[key].position = position

    @property
    def positions(self) -> dict[PartitionKey, int]:
        """Its positions by partition."""
        return {key: cursor.position for key, cursor in self.follower.cursors.items()}

    async def wait_for_message(self) -> None:
        """Wait, in logs that it has had all of, until there is a message for it at a cursor, or something else changes."""
        await self.follower.wait(parked=True)

    def take(self, cursor: LogCursor, chunk: Chunk) -> int:
        """Skip a chunk in which it sees nothing; otherwise be woken."""
        if chunk.messages:
            self.follower.wake()
        else:
            cursor.position = chunk.next
        return 0

    def on_follow(self, cursor: LogCursor) -> None:
        """Begin with a log that is followed now."""

    def on_unfollow(self, key: PartitionKey) -> None:
        """End with a log that is followed no more."""

    def on_subscribed(self, change: SubscriptionChange) -> None:
        """Do nothing: a page follows its chat, whatever anyone subscribes to."""

    def on_unsubscribed(self, change: SubscriptionChange, positions: Mapping[int, int]) -> None:
        """Report that its user has unsubscribed from a chat."""

    def finish(self) -> None:
        """End its wait."""
        self.over = True
        self.follower.wake()
