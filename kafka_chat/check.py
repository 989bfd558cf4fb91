"""`kafka-chat check`: what is wrong with the settings, the brokers and the topics, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio

from .chat.topics import ChatNames
from .errors import BrokerError, SettingsError
from .kafka.connect import ClientConfig
from .kafka.lookup import open_lookup
from .kafka.publish import open_publisher
from .kafka.subscriptions_topic import SubscriptionsTopic
from .settings import Settings, connections_limit

if TYPE_CHECKING:
    from .kafka.lookup import KafkaLookup

ANSWER_SECONDS = 10.0  # for all of it


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        subject: what: `settings`, `files`, `brokers`, `topics`, `subscriptions`.
        ok: whether it is as it has to be.
        sentence: how it is, and what to do.
    """

    subject: str
    ok: bool
    sentence: str


async def check(settings: Settings) -> list[Finding]:
    """Look at everything that the service needs; changes nothing, and takes 10 s at most.

    Args:
        settings: with brokers named.
    """
    findings = [_files(settings)]
    config = ClientConfig(settings.kafka)
    servers = settings.kafka.bootstrap_servers
    with trio.move_on_after(ANSWER_SECONDS) as scope:
        async with open_lookup(config) as lookup:
            try:
                await lookup.ping()
            except BrokerError as error:
                return [*findings, Finding(subject="brokers", ok=False, sentence=f"{servers}: {error}")]
            findings.append(Finding(subject="brokers", ok=True, sentence=f"{servers}: they answer"))
            findings += await _topics(settings, lookup)
            findings.append(await _subscriptions(settings, config, lookup))
    if scope.cancelled_caught:
        findings.append(Finding(subject="brokers", ok=False, sentence=f"{servers}: no answer to everything within {ANSWER_SECONDS:.0f} s"))
    return findings


def _files(settings: Settings) -> Finding:
    try:
        places = connections_limit(settings)
    except SettingsError as error:
        return Finding(subject="files", ok=False, sentence=str(error))
    return Finding(subject="files", ok=True, sentence=f"the limit of open files leaves room for {places} WebSockets")


async def _topics(settings: Settings, lookup: KafkaLookup) -> list[Finding]:
    names = ChatNames(settings.chats.prefix)
    topics = [names.topic(chat) for chat in settings.chats.default]
    try:
        facts = await lookup.describe(topics)
    except BrokerError as error:
        return [Finding(subject="topics", ok=False, sentence=str(error))]
    findings = []
    for topic in topics:
        if topic not in facts:
            sentence = f"{topic} does not exist; it is followed from its first message once it does"
            findings.append(Finding(subject="topics", ok=True, sentence=sentence))
        elif facts[topic].leaderless:
            partitions = ", ".join(map(str, sorted(facts[topic].leaderless)))
            findings.append(Finding(subject="topics", ok=False, sentence=f"{topic} has no leader for its partitions {partitions}"))
        else:
            findings.append(
                Finding(subject="topics", ok=True, sentence=f"{topic} is there, with {len(facts[topic].partitions)} partitions")
            )
    return findings


async def _subscriptions(settings: Settings, config: ClientConfig, lookup: KafkaLookup) -> Finding:
    name = settings.subscriptions.topic
    async with open_publisher(config) as publisher:
        topic = SubscriptionsTopic(config, name, lookup=lookup, publisher=publisher)
        try:
            facts = await topic.look()
            if facts is None:
                return Finding(subject="subscriptions", ok=True, sentence=f"{name} does not exist; the service makes it at its first start")
            problem = await topic.problem(facts)
        except BrokerError as error:
            return Finding(subject="subscriptions", ok=False, sentence=str(error))
    return Finding(subject="subscriptions", ok=problem is None, sentence=problem or f"{name} is there, compacted, with one partition")
