"""The interface of what joins the audience: a session, or the reader of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...chat.subscription_change import SubscriptionChange
    from ..log.follower import Follower
    from .wanted_start import Start


class Member(Protocol):
    """Follows topics, and decides where it begins in each. These are plain functions, called at any time.

    Attributes:
        only: the chats it follows, subscribed or not; empty: its user's chats.
    """

    only: Sequence[str]

    @property
    def username(self) -> str:
        """The user."""

    @property
    def follower(self) -> Follower:
        """Its cursors in the logs."""

    def chats(self) -> Mapping[str, SubscriptionChange | None]:
        """Return the chats that it follows, each with its user's subscription, or None without one."""

    def start(self, topic: str, change: SubscriptionChange | None) -> Start:
        """Return where it begins in a topic.

        Args:
            topic: a topic that it follows.
            change: its user's subscription; None without one.
        """

    def on_subscribed(self, change: SubscriptionChange) -> None:
        """Note that its user subscribed to a chat."""

    def on_unsubscribed(self, change: SubscriptionChange, positions: Mapping[int, int]) -> None:
        """Note that its user unsubscribed from a chat, which was delivered up to `positions`, by partition."""
