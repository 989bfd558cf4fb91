"""The parts of the service that sessions and page readers use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...chat.resume_cursor import NOT_KNOWN
from .deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...access.decision import Identify
    from ...chat.names import ChatNames
    from ...chat.subscription_change import SubscriptionChange
    from ...settings.model import Limits as LimitSettings
    from ...telemetry.metrics import Telemetry
    from ..audience.audience import Audience
    from ..audience.offset_queries import OffsetQueries
    from ..log.memory import Memory
    from ..log.page_reads import PageReads
    from ..ports import Cluster, SubscriptionLog
    from ..writes.sending import Sending
    from ..writes.subscriptions import Subscriptions


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionContext:
    """The parts of the service that sessions and page readers use.

    Attributes:
        audience: the members and their positions.
        subscription_log: says how far it has been read.
        subscriptions: for ops.
        chats_of: returns the chats of a user, including default chats.
        sending: sends messages; None if switched off.
        names: chat <-> topic.
        offsets: asks brokers for the offsets of times.
        limits: the limits reported to clients.
        cluster: identifies the Kafka cluster.
        page_reads: reads what is not in memory.
        memory: counts what is held for clients.
        telemetry: the service's.
        identify: returns the identity for a token, or for none; None while access is off.
        deadlines: of tokens.
    """

    audience: Audience
    subscription_log: SubscriptionLog
    subscriptions: Subscriptions
    chats_of: Callable[[str], Mapping[str, SubscriptionChange]]
    sending: Sending | None
    names: ChatNames
    offsets: OffsetQueries
    limits: LimitSettings
    cluster: Cluster
    page_reads: PageReads
    memory: Memory
    telemetry: Telemetry
    identify: Identify | None = None
    deadlines: Deadlines = field(default_factory=Deadlines)

    @property
    def subscriptions_read(self) -> int:
        """The offset up to which the subscriptions topic has been read, for cursors."""
        return self.subscription_log.position if self.subscription_log.ready else NOT_KNOWN
