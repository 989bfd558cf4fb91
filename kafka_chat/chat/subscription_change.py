"""A user's subscription to a chat, from given offsets on, or its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionChange:
    """A record of the subscriptions topic: one user's change of one chat.

    Attributes:
        username: the user.
        chat: the chat.
        subscribed: False if the user unsubscribed.
        topic_id: the id of the chat's topic at that time; "" if it did not exist.
        starts: partition -> offset from which it is followed: its last stable offset then. Other partitions were added later,
            and are followed from 0.
        offset: the record's offset; negative if unknown.
    """

    username: str
    chat: str
    subscribed: bool
    topic_id: str = ""
    starts: Mapping[int, int]
    offset: int = -1
