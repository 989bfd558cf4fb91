"""That somebody follows a chat from some offsets on, or follows it no more."""

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
        topic_id: the identity of the chat's topic when it was subscribed; "" where there was none.
        starts: partition -> offset from which it is followed: its last stable offset then. One that is not named came later, and
            starts at 0.
        offset: of the record; negative where it is not known.
    """

    username: str
    chat: str
    subscribed: bool
    topic_id: str = ""
    starts: Mapping[int, int]
    offset: int = -1
