"""`kafka-chat check`: reports what is wrong with the settings, the brokers and the topics."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import trio

from ..chat.names import ChatNames
from ..errors import BrokerError, SettingsError
from ..kafka.connect import ClientConfig
from ..kafka.lookup import open_lookup
from ..kafka.publish import open_publisher
from ..kafka.subscriptions_topic import SubscriptionsTopic
from ..process.open_files import connections_limit

if TYPE_CHECKING:
    from ..kafka.lookup import KafkaLookup
    from ..settings.model import Settings

ANSWER_SECONDS = 30.0  # for all checks: about ten requests to brokers that may be half a second away


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check.

    Attributes:
        subject: what was checked: `settings`, `files`, `brokers`, `topics`, `subscriptions`.
        ok: whether it is right.
        sentence: the result, and what to do.
    """

    subject: str
    ok: bool
    sentence: str


async def check(settings: Settings) -> list[Finding]:
    """Check everything that the service needs; change nothing.

    With near brokers it takes less than a second, without a reachable broker 5 s, and never more than 30.

    Args:
        settings: with named brokers, or with the embedded one.
    """
    findings = [_well("settings", "nothing is wrong with them"), _files(settings)]
    servers = settings.kafka.bootstrap_servers
    if servers is None:
        return [*findings, _well("brokers", "the embedded broker is used; there is nothing to check")]
    config = ClientConfig(settings.kafka)
    with trio.move_on_after(ANSWER_SECONDS) as scope:
        async with open_lookup(config) as lookup:
            try:
                await lookup.reach()
            except BrokerError as error:
                # An address that is not in the settings is one that a broker advertises.
                named = set(re.findall(r"Failed to resolve '([^']+)'", str(error))) - set(servers.split(","))
                hint = "; the brokers advertise this address (advertised.listeners)" if named else ""
                return [*findings, _wrong("brokers", f"{servers}: {error}{hint}")]
            try:
                nodes = await lookup.nodes()
            except BrokerError as error:
                why = lookup.reasons() or str(error)
                sentence = f"{servers} answers, but the brokers that it advertises (advertised.listeners) cannot be reached: {why}"
                return [*findings, _wrong("brokers", sentence)]
            findings.append(_well("brokers", f"{servers} answers; {_count(len(nodes), 'broker')}: {', '.join(nodes)}"))
            findings += await _topics(settings, lookup)
            findings.append(await _subscriptions(settings, config, lookup))
    if scope.cancelled_caught:
        findings.append(_wrong("brokers", f"{servers}: some questions had no answer within {ANSWER_SECONDS:.0f} s"))
    return findings


def _files(settings: Settings) -> Finding:
    try:
        connections = connections_limit(settings)
    except SettingsError as error:
        return _wrong("files", str(error))
    return _well("files", f"each process takes {connections} connections (limits.connections, or what open files and memory leave)")


async def _topics(settings: Settings, lookup: KafkaLookup) -> list[Finding]:
    names = ChatNames(settings.chats.prefix)
    topics = [names.topic(chat) for chat in settings.chats.default]
    if not topics:
        return []
    try:
        facts = await lookup.describe(topics)
        operations = await lookup.operations(topics)
    except BrokerError as error:
        return [_wrong("topics", str(error))]
    findings = []
    for topic in topics:
        if topic not in facts:
            sentence = f"{topic} does not exist, or this user may not see it; once it exists, it is followed from its first message"
            findings.append(_well("topics", sentence))
        elif facts[topic].leaderless:
            partitions = ", ".join(map(str, sorted(facts[topic].leaderless)))
            findings.append(_wrong("topics", f"{topic} has partitions without a leader, which cannot be read: {partitions}"))
        elif "READ" not in operations.get(topic, {"READ"}):
            findings.append(_wrong("topics", f"{topic} may not be read by this user; an ACL that allows Read is needed"))
        elif settings.sending_enabled and "WRITE" not in operations.get(topic, {"WRITE"}):
            findings.append(
                _wrong("topics", f"{topic} may not be written by this user, though sending is on; an ACL that allows Write is needed")
            )
        else:
            findings.append(_well("topics", f"{topic} exists, with {_count(len(facts[topic].partitions), 'partition')}"))
    return findings


async def _subscriptions(settings: Settings, config: ClientConfig, lookup: KafkaLookup) -> Finding:
    name = settings.subscriptions.topic
    async with open_publisher(config) as publisher:
        topic = SubscriptionsTopic(config, name, lookup=lookup, publisher=publisher)
        try:
            facts = await topic.look()
            if facts is None:
                return _well("subscriptions", f"{name} does not exist; the service creates it at its first start")
            problem = await topic.problem(facts)
            operations = (await lookup.operations([name])).get(name, frozenset())
        except BrokerError as error:
            return _wrong("subscriptions", str(error))
    if problem is not None:
        return _wrong("subscriptions", problem)
    missing = [operation for operation in ("READ", "WRITE") if operation not in operations]
    if missing:
        allowed = " and ".join(operation.capitalize() for operation in missing)
        return _wrong("subscriptions", f"{name} may not be used by this user; an ACL that allows {allowed} is needed")
    return _well("subscriptions", f"{name} exists: compacted, one partition, writable")


def _well(subject: str, sentence: str) -> Finding:
    return Finding(subject=subject, ok=True, sentence=sentence)


def _wrong(subject: str, sentence: str) -> Finding:
    return Finding(subject=subject, ok=False, sentence=sentence)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
