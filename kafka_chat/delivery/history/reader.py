"""Reads one chat's partitions for a history page."""

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
    """Follows one chat for a request, as a member of the audience that new messages wake.

    A waiting request parks it at the heads of the logs. Then the fan-out offers it new messages in its view, rendered once for
    all equal views, and it wakes only if there are any for it.

    Attributes:
        follower: its cursors in the logs.
        only: its chat.
        subscriber: always None.
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
        """Make a reader, which must then join the `Audience`.

        Args:
            chat: the chat to follow.
            begin: its start without a cursor.
            cursor: the cursor to begin after, or None.
            names: chat <-> topic.
            view: the format, and which messages.
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
        """Note a gap: messages that were due are lost."""
        self.gaps.append(gap_in(key, self._names, first_lost, first_left, cause))

    async def news(self) -> None:
        """Wait until something changes in the logs it follows."""
        await self.follower.wait(parked=False)

    def resumes_wholly(self, logs: Sequence[PartitionLog]) -> bool:
        """Whether its cursor is of this topic, and names its start in each of these logs and in no other partition."""
        if self.resumed is None or not self.resumed.entry.whole:
            return False
        entry = self.resumed.entry
        if entry.names_others({log.key.partition for log in logs}):
            return False  # a partition without a leader, whose messages belong in between
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
        """Wait at the heads of its logs until there is a message for it, or something else changes."""
        await self.follower.wait(parked=True)

    def take(self, cursor: LogCursor, chunk: Chunk) -> int:
        """Skip a chunk without messages for it; otherwise wake."""
        if chunk.messages:
            self.follower.wake()
        else:
            cursor.position = chunk.next
        return 0

    def on_follow(self, cursor: LogCursor) -> None:
        """Do nothing."""

    def on_unfollow(self, key: PartitionKey) -> None:
        """Do nothing."""

    def on_subscribed(self, change: SubscriptionChange) -> None:
        """Do nothing: a page follows its chat whatever its user subscribes to."""

    def on_unsubscribed(self, change: SubscriptionChange, positions: Mapping[int, int]) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """End its wait."""
        self.over = True
        self.follower.wake()
