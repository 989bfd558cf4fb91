"""Starts everything in order: the only file that knows both edges of the core.

Everything runs in a nursery of `open_service`. A task that fails ends the service, and so the process: the worst state is a
server that is up but delivers nothing.
"""

from __future__ import annotations

import ipaddress
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from .chat.names import ChatNames
from .delivery.audience.audience import Audience
from .delivery.audience.followed_topics import FollowedTopics
from .delivery.audience.offset_queries import OffsetQueries
from .delivery.log.fan_out import FanOut
from .delivery.log.memory import Memory
from .delivery.log.page_reads import PageReads, open_page_reads
from .delivery.session.context import SessionContext
from .delivery.writes.sending import Sending
from .delivery.writes.subscriptions import Subscriptions
from .kafka.cluster import Cluster
from .kafka.connect import ClientConfig
from .kafka.embedded_broker import open_embedded_broker
from .kafka.lookup import open_lookup
from .kafka.page_source import SILENT_LEADERS, open_page_source
from .kafka.publish import open_publisher
from .kafka.subscription_log import open_subscription_log
from .kafka.tail import KafkaTail, open_tail
from .nursery import open_tasks
from .readiness import ALL_WELL
from .service import Service
from .telemetry.metrics import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .issuers.authority import Authority
    from .settings.model import Settings


@asynccontextmanager
async def _reachable(settings: Settings) -> AsyncIterator[ClientConfig]:
    """Yield how to reach the brokers: those of the settings, the supervisor's embedded one, or our own embedded one."""
    if settings.kafka.bootstrap_servers is not None or not settings.kafka.embedded:
        yield ClientConfig(settings.kafka)
        return
    async with open_embedded_broker() as address:
        yield ClientConfig(msgspec.structs.replace(settings.kafka, bootstrap_servers=address))


@asynccontextmanager
async def _authority(settings: Settings, telemetry: Telemetry) -> AsyncIterator[Authority | None]:
    """Yield the authority that identifies clients; None if access control is off."""
    if not settings.auth.issuers:
        if not _is_loopback(settings.server.host):
            telemetry.auth_off(host=settings.server.host)
        yield None
        return
    from .issuers.authority import open_authority  # late: it needs an extra

    async with open_authority(settings.auth, telemetry) as authority:
        yield authority


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@asynccontextmanager
async def open_service(settings: Settings, *, telemetry: Telemetry | None = None) -> AsyncIterator[Service]:
    """Start everything except the server; the brokers may be away.

    Raises:
        Exception: an error of a task of the service, or of the block.
    """
    telemetry = telemetry or Telemetry()
    names = ChatNames(settings.chats.prefix)
    memory = Memory(settings.memory.bytes)
    fanout = FanOut(telemetry=telemetry)
    readers = settings.pages.readers
    async with (
        _authority(settings, telemetry) as authority,
        _reachable(settings) as config,
        open_lookup(config) as lookup,
        open_publisher(config) as publisher,
    ):
        cluster, offsets = Cluster(lookup, telemetry), OffsetQueries(lookup)
        followed = FollowedTopics(fanout=fanout, offsets=offsets, memory=memory)
        tail = KafkaTail(
            config,
            listener=followed,
            lookup=lookup,
            cluster=cluster,
            names=names,
            limits=settings.limits,
            telemetry=telemetry,
            consumers=settings.tail.consumers,
        )
        async with (
            open_tail(tail),
            open_page_source(
                config, readers=readers, silent_leaders=SILENT_LEADERS, names=names, limits=settings.limits, lookup=lookup
            ) as pages,
            open_page_reads(PageReads(pages, telemetry=telemetry), readers=readers) as page_reads,
        ):
            audience = Audience(followed, tail=tail, names=names)
            async with (
                open_subscription_log(
                    config,
                    topic=settings.subscriptions.topic,
                    publisher=publisher,
                    lookup=lookup,
                    listener=audience.user_changed,
                    telemetry=telemetry,
                ) as subscription_log,
                open_tasks() as nursery,
            ):
                cluster.on_replaced.append(subscription_log.read_again)
                subscriptions = Subscriptions(subscription_log, lookup=lookup, names=names, settings=settings)
                for chat in settings.chats.default:
                    audience.pin(names.topic(chat))
                sending = Sending(publisher, lookup=lookup, names=names, settings=settings)
                context = SessionContext(
                    audience=audience,
                    subscription_log=subscription_log,
                    subscriptions=subscriptions,
                    chats_of=subscriptions.chats_of,
                    sending=sending if settings.sending_enabled else None,
                    names=names,
                    offsets=offsets,
                    limits=settings.limits,
                    cluster=cluster,
                    page_reads=page_reads,
                    memory=memory,
                    telemetry=telemetry,
                    identify=None if authority is None else authority.identify,
                )
                service = Service(
                    settings,
                    context,
                    sending=sending,
                    lookup=lookup,
                    tail=tail,
                    issuers_readiness=(lambda: ALL_WELL) if authority is None else authority.readiness,
                )
                telemetry.gauge("sockets", lambda: service.slots_taken)
                telemetry.gauge("catching_up", lambda: service.slots.catching_up)
                telemetry.gauge("memory_held_bytes", lambda: memory.used_bytes)
                telemetry.gauge("memory_limit_bytes", lambda: memory.limit_bytes)
                telemetry.gauge("owed_bytes", lambda: memory.owed_bytes)
                telemetry.gauge("followed_topics", lambda: audience.topics)
                telemetry.gauge("partitions_held", lambda: len(tail.held))
                telemetry.gauge("followed_partitions", lambda: audience.partitions)
                nursery.start_soon(fanout.run)
                nursery.start_soon(followed.starts.run)
                nursery.start_soon(followed.walks.run)
                nursery.start_soon(offsets.run)
                nursery.start_soon(context.deadlines.run)
                nursery.start_soon(telemetry.run_left_out)
                nursery.start_soon(service.run_until_read)
                nursery.start_soon(service.run_drain)
                nursery.start_soon(cluster.run)
                yield service
