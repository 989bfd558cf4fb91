"""What a session needs of the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...chat.resume_cursor import NOT_KNOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...chat.names import ChatNames
    from ...settings.model import Limits as LimitSettings
    from ..audience.audience import Audience
    from ..audience.offset_queries import OffsetQueries
    from ..ports import SubscriptionLog
    from ..writes.sending import Sending
    from ..writes.subscriptions import Subscriptions


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionContext:
    """What such a session needs of the service.

    Attributes:
        audience: who follows what, and how far.
        subscription_log: how far it has been read.
        subscriptions: changed by ops.
        sending: None where it is switched off.
        names: chat <-> topic.
        offsets: asks for those of times.
        limits: told to clients.
        cluster: tells the cluster's mark; None where it is not known yet.
    """

    audience: Audience
    subscription_log: SubscriptionLog
    subscriptions: Subscriptions
    sending: Sending | None
    names: ChatNames
    offsets: OffsetQueries
    limits: LimitSettings
    cluster: Callable[[], bytes | None]

    @property
    def subscriptions_read(self) -> int:
        """Up to where the subscriptions topic has been read, as cursors say it."""
        return self.subscription_log.position if self.subscription_log.ready else NOT_KNOWN
