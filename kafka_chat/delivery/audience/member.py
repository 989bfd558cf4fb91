"""A session, as the audience lets it in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..log.log_cursor import Follower

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..ports import SubscriptionChange
    from .starts import Start


class Member(Follower, Protocol):
    """A session that joins: it follows topics, and says where it begins in each.

    Attributes:
        only: the chats that it follows, subscribed or not; none: those of its user.
        username: whose it is.
    """

    only: Sequence[str]
    username: str

    def start(self, topic: str, change: SubscriptionChange | None) -> Start:
        """Return where it begins in a topic.

        Args:
            topic: that it follows.
            change: how its user subscribed to it; None where it did not.
        """
