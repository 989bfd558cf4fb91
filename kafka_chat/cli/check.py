"""`kafka-chat check`: reports what is wrong with the settings, the issuers' keys, the brokers and the topics."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import trio

from ..chat.names import ChatNames
from ..errors import BrokerError, SettingsError
from ..kafka.connect import ClientConfig
from ..kafka.lookup import open_lookup
from ..kafka.publish import open_publisher
from ..kafka.subscriptions_topic import SubscriptionsTopic
from ..process.open_files import connections_limit
from .finding import Finding, well, wrong

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..kafka.lookup import KafkaLookup
    from ..settings.model import Settings

ANSWER_SECONDS = 30.0  # for all checks: about ten requests to brokers that may be half a second away


async def check(settings: Settings) -> list[Finding]:
    """Check everything that the service needs; change nothing.

    With near brokers it takes less than a second, with silent ones 10 s, and never more than 30.

    Args:
        settings: with named brokers, or with the embedded one.
    """
    keys: list[Finding] = []
    brokers: list[Finding] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_put, keys, _keys, settings)
        nursery.start_soon(_put, brokers, _brokers, settings)
    return [well("settings", "nothing is wrong with them"), _files(settings), *keys, *brokers]


async def _put(findings: list[Finding], look: Callable[[Settings], Awaitable[list[Finding]]], settings: Settings) -> None:
    findings += await look(settings)


async def _keys(settings: Settings) -> list[Finding]:
    if not settings.auth.issuers:
        return []
    from .check_keys import check_keys  # late: it needs an extra

    return await check_keys(settings.auth)


async def _brokers(settings: Settings) -> list[Finding]:
    findings: list[Finding] = []
    servers = settings.kafka.bootstrap_servers
    if servers is None:
        return [well("brokers", "the embedded broker is used; there is nothing to check")]
    config = ClientConfig(settings.kafka)
    with trio.move_on_after(ANSWER_SECONDS) as scope:
        async with open_lookup(config) as lookup:
            try:
                await lookup.reach()
            except BrokerError as error:
                # An address that is not in the settings is one that a broker advertises.
                named = set(re.findall(r"Failed to resolve '([^']+)'", str(error))) - set(servers.split(","))
                hint = "; the brokers advertise this address (advertised.listeners)" if named else ""
                return [*findings, wrong("brokers", f"{servers}: {error}{hint}")]
            try:
                nodes = await lookup.nodes()
            except BrokerError as error:
                why = lookup.reasons() or str(error)
                sentence = f"{servers} answers, but the brokers that it advertises (advertised.listeners) cannot be reached: {why}"
                return [*findings, wrong("brokers", sentence)]
            findings.append(well("brokers", f"{servers} answers; {_count(len(nodes), 'broker')}: {', '.join(nodes)}"))
            findings += await _topics(settings, lookup)
            findings.append(await _subscriptions(settings, config, lookup))
    if scope.cancelled_caught:
        findings.append(wrong("brokers", f"{servers}: some questions had no answer within {ANSWER_SECONDS:.0f} s"))
    return findings


def _files(settings: Settings) -> Finding:
    try:
        connections = connections_limit(settings)
    except SettingsError as error:
        return wrong("files", str(error))
    return well("files", f"each process takes {connections} connections (limits.connections, or what open files and memory leave)")


async def _topics(settings: Settings, lookup: KafkaLookup) -> list[Finding]:
    names = ChatNames(settings.chats.prefix)
    topics = [names.topic(chat) for chat in settings.chats.default]
    if not topics:
        return []
    try:
        facts = await lookup.describe(topics)
        operations = await lookup.operations(topics)
    except BrokerError as error:
        return [wrong("topics", str(error))]
    findings = []
    for topic in topics:
        if topic not in facts:
            sentence = f"{topic} does not exist, or this user may not see it; once it exists, it is followed from its first message"
            findings.append(well("topics", sentence))
        elif facts[topic].leaderless:
            partitions = ", ".join(map(str, sorted(facts[topic].leaderless)))
            findings.append(wrong("topics", f"{topic} has partitions without a leader, which cannot be read: {partitions}"))
        elif "READ" not in operations.get(topic, {"READ"}):
            findings.append(wrong("topics", f"{topic} may not be read by this user; an ACL that allows Read is needed"))
        elif settings.sending_enabled and "WRITE" not in operations.get(topic, {"WRITE"}):
            findings.append(
                wrong("topics", f"{topic} may not be written by this user, though sending is on; an ACL that allows Write is needed")
            )
        else:
            findings.append(well("topics", f"{topic} exists, with {_count(len(facts[topic].partitions), 'partition')}"))
    return findings


async def _subscriptions(settings: Settings, config: ClientConfig, lookup: KafkaLookup) -> Finding:
    name = settings.subscriptions.topic
    async with open_publisher(config) as publisher:
        topic = SubscriptionsTopic(config, name, lookup=lookup, publisher=publisher)
        try:
            facts = await topic.look()
            if facts is None:
                return well("subscriptions", f"{name} does not exist; the service creates it at its first start")
            problem = await topic.problem(facts)
            operations = (await lookup.operations([name])).get(name, frozenset())
        except BrokerError as error:
            return wrong("subscriptions", str(error))
    if problem is not None:
        return wrong("subscriptions", problem)
    missing = [operation for operation in ("READ", "WRITE") if operation not in operations]
    if missing:
        allowed = " and ".join(operation.capitalize() for operation in missing)
        return wrong("subscriptions", f"{name} may not be used by this user; an ACL that allows {allowed} is needed")
    return well("subscriptions", f"{name} exists: compacted, one partition, writable")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
