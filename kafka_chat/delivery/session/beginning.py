"""Where a client wants to begin in a topic, of all that it may say about that; docs/protocol.md, "Cursor and position"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..audience.wanted_start import LATEST, AtOffsets, Resumed

if TYPE_CHECKING:
    from ...chat.resume_cursor import ResumeCursor
    from ..audience.wanted_start import Start, Unresumed
    from ..ports import SubscriptionChange
    from .options import SessionOptions


def beginning_in(topic: str, options: SessionOptions, cursor: ResumeCursor | None, change: SubscriptionChange | None) -> Start:
    """Return where a client begins in a topic.

    Args:
        topic: that it follows.
        options: what it asked for besides its cursor.
        cursor: after what it begins, of this cluster; None for none.
        change: how its user subscribed to the chat; None where it did not.
    """
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
        return Resumed(entry, subscribed, not_before=subscribed)  # anew, since that cursor
    # What only ids of messages name was subscribed to while its client was here, or came to life then.
    return Resumed(entry, subscribed if cursor.whole and not entry.whole else begin)
