"""The interface of what joins the audience: a session, or the reader of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...chat.resume_cursor import TopicOffsets
    from ...chat.subscription_change import SubscriptionChange
    from ..log.follower import Follower
    from .wanted_start import Start


class Member(Protocol):
    """Follows topics, and decides where it begins in each. These are plain functions, called at any time.

    Attributes:
        only: the chats it follows, subscribed or not; empty: those of its user.
        kept: topic -> where its client is in a chat that it may not read now; its cursors repeat it.
    """

    only: Sequence[str]
    kept: Mapping[str, TopicOffsets]

    @property
    def subscriber(self) -> str | None:
        """The user whose subscription changes it follows, or None. Does not change while it is a member."""

    @property
    def follower(self) -> Follower:
        """Its cursors in the logs."""

    def chats(self) -> Mapping[str, SubscriptionChange | None]:
        """Return the chats that it follows, each with its user's subscription, or None without one."""

    def may_follow(self, chat: str) -> bool:
        """Return whether it may read a chat."""

    def start(self, topic: str, change: SubscriptionChange | None) -> Start:
        """Return where it begins in a topic.

        Args:
            topic: a topic that it follows.
            change: its user's subscription; None without one.
        """

    def on_subscribed(self, change: SubscriptionChange) -> None:
        """Note that its user subscribed to a chat."""

    def on_unsubscribed(self, change: SubscriptionChange, positions: Mapping[int, int]) -> None:
        """Its user unsubscribed from a chat, which was delivered up to these positions by partition."""


class Rightful(Member, Protocol):
    """A member whose rights may change while it is one."""

    def on_denied(self, chat: str, positions: Mapping[int, int], entry: TopicOffsets | None) -> None:
        """It may not read a chat any more.

        Args:
            chat: that it leaves.
            positions: partition -> up to where it was delivered.
            entry: the same, as a cursor says it.
        """

    def on_allowed(self, chat: str, change: SubscriptionChange | None) -> Start:
        """It may read a chat now; return where it begins there.

        Args:
            chat: that it follows from now on.
            change: how its user subscribed to it; None where it did not.
        """
