"""What joins the audience: a session, or the reader of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...chat.subscription_change import SubscriptionChange
    from ..log.follower import Follower
    from .wanted_start import Start


class Member(Protocol):
    """Follows topics, and says where it begins in each. Plain functions, which may be called at any time.

    Attributes:
        only: the chats it follows, subscribed or not; empty: those of its user.
    """

    only: Sequence[str]

    @property
    def username(self) -> str:
        """Whose it is."""

    @property
    def follower(self) -> Follower:
        """Its places in the logs."""

    def chats(self) -> Mapping[str, SubscriptionChange | None]:
        """Return the chats that it follows, and how its user subscribed to each; None where it did not."""

    def start(self, topic: str, change: SubscriptionChange | None) -> Start:
        """Return where it begins in a topic.

        Args:
            topic: that it follows.
            change: how its user subscribed to it; None where it did not.
        """

    def on_subscribed(self, change: SubscriptionChange) -> None:
        """Its user subscribed to a chat."""

    def on_unsubscribed(self, change: SubscriptionChange, positions: Mapping[int, int]) -> None:
        """Its user unsubscribed from a chat, which was delivered up to these positions by partition."""
