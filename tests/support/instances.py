"""One instance's subscriptions and sending on real brokers, without sessions and a server around them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from kafka_chat.chat.names import ChatNames
from kafka_chat.delivery.writes.sending import Sending
from kafka_chat.delivery.writes.subscriptions import Subscriptions
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.lookup import open_lookup
from kafka_chat.kafka.publish import KafkaPublisher, open_publisher
from kafka_chat.kafka.subscription_log import SubscriptionLog, open_subscription_log
from kafka_chat.telemetry.metrics import Telemetry

from .deadlines import HANG_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kafka_chat.chat.subscription_change import SubscriptionChange
    from kafka_chat.delivery.ports import Lookup
    from kafka_chat.settings.model import Settings


@dataclass
class Instance:
    """The subscriptions part of one process.

    Attributes:
        changes: the changes reported to the listener.
    """

    publisher: KafkaPublisher
    log: SubscriptionLog
    subscriptions: Subscriptions
    sending: Sending
    changes: list[SubscriptionChange]
    telemetry: Telemetry

    def chats(self, username: str) -> list[str]:
        """Return what our tail knows that somebody follows, sorted, without the defaults."""
        return sorted(self.log.chats_of(username))


@asynccontextmanager
async def opened(
    settings: Settings, *, ready: bool = True, lookup: Callable[[Lookup], Lookup] = lambda lookup: lookup
) -> AsyncIterator[Instance]:
    """Open an instance while the block runs.

    Args:
        settings: as for the service.
        ready: begin the block once the subscriptions are read.
        lookup: what `Subscriptions` asks instead of the brokers.
    """
    config, names, telemetry = ClientConfig(settings.kafka), ChatNames(settings.chats.prefix), Telemetry()
    changes: list[SubscriptionChange] = []

    async def note(change: SubscriptionChange) -> None:
        changes.append(change)

    async with (
        open_lookup(config) as answers,
        open_publisher(config) as publisher,
        open_subscription_log(
            config, topic=settings.subscriptions.topic, publisher=publisher, lookup=answers, listener=note, telemetry=telemetry
        ) as log,
    ):
        if ready:
            with trio.fail_after(HANG_SECONDS):
                await log.wait_ready()
        yield Instance(
            publisher=publisher,
            log=log,
            subscriptions=Subscriptions(log, lookup=lookup(answers), names=names, settings=settings),
            sending=Sending(publisher, lookup=answers, names=names, settings=settings),
            changes=changes,
            telemetry=telemetry,
        )
