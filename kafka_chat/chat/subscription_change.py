"""A user's subscription to a chat from some offsets on, or its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionChange:
    """A record of the subscriptions topic: what changed for one user.

    Attributes:
        username: whose.
        chat: which.
        subscribed: or unsubscribed.
        topic_id: the id of the chat's topic at that time; "" if it did not exist.
        starts: partition -> offset from which it is followed: its last stable offset then. Other partitions were added later, and
            starts at 0.
        offset: of the record; negative if unknown.
    """

    username: str
    chat: str
    subscribed: bool
    topic_id: str = ""
    starts: Mapping[int, int]
    offset: int = -1
