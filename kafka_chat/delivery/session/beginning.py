"""Decides from all its options where a client begins in a topic; docs/protocol.md, "Cursor and position"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...chat.loss_cause import LossCause
from ..audience.wanted_start import LATEST, AtOffsets, Resumed

if TYPE_CHECKING:
    from ...chat.resume_cursor import ResumeCursor
    from ...chat.subscription_change import SubscriptionChange
    from ..audience.wanted_start import Start, Unresumed
    from .options import SessionOptions


class Beginning:
    """The start of one client, and what `hello` says about it.

    Args:
        options: its options besides the cursor.
        cursor: the cursor to begin after, or None.
        cluster: the mark of the current cluster; None if not known yet.

    Attributes:
        cursor: the cursor, until `forget`: it may be large.
        resume: `resume` in `hello`: "none", "exact", "gap" or "future".
        subscriptions_known: the offset in the subscriptions topic up to which its client knows all changes; 0: knows none.
    """

    __slots__ = ("_counts", "_options", "cursor", "resume", "subscriptions_known")

    def __init__(self, options: SessionOptions, cursor: ResumeCursor | None, cluster: bytes | None) -> None:
        self._options = options
        self.cursor = cursor
        # Decided once, because `hello` says it. If another cluster answers later, the cursor's positions are lost, and reported as gaps.
        self._counts = cursor is not None and not cursor.says_nothing and cursor.is_of(cluster)
        self.resume = "exact" if self._counts else "none"
        known = cursor is not None and cursor.cluster in (None, cluster)
        self.subscriptions_known = max(0, cursor.subscriptions) if cursor is not None and known else 0

    def start(self, topic: str, change: SubscriptionChange | None) -> Start:
        """Return where it begins in a topic.

        Args:
            topic: a topic that it follows.
            change: its user's subscription to the chat; None without one.
        """
        return beginning_in(topic, self._options, self.cursor if self._counts else None, change)

    def note_gap(self, cause: LossCause) -> None:
        """Note that messages due to the client are lost."""
        if self.resume != "none":
            self.resume = "future" if cause is LossCause.TRUNCATED else "gap"

    def forget(self) -> int:
        """Free the cursor; return its memory in bytes."""
        held_bytes = 0 if self.cursor is None else self.cursor.held_bytes
        self.cursor = None
        return held_bytes


def beginning_in(topic: str, options: SessionOptions, cursor: ResumeCursor | None, change: SubscriptionChange | None) -> Start:
    """Return where a client begins in a topic; see `Beginning.start`."""
    begin: Unresumed = options.beginning(LATEST)
    subscribed = None if change is None or change.offset < 0 else AtOffsets(change.topic_id, change.starts)
    if cursor is None:
        return begin
    entry = cursor.entry(topic)
    if subscribed is None or change is None:
        return begin if entry is None else Resumed(entry, begin)
    if entry is None:
        said_by_record = cursor.complete and change.offset < cursor.subscriptions
        return subscribed if said_by_record or (begin == LATEST and cursor.whole) else begin
    if 0 <= cursor.subscriptions <= change.offset and not options.chats:
        return Resumed(entry, subscribed, not_before=subscribed)  # subscribed again since that cursor
    # A topic named only by ids of messages was subscribed to, or created, while its client was connected.
    return Resumed(entry, subscribed if cursor.whole and not entry.whole else begin)
