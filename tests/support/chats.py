"""Names of one test: a prefix for its chats, and the settings of a service that uses them."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from kafka_chat.settings.model import ChatSettings, KafkaSettings, Limits, ServerSettings, Settings, SubscriptionSettings

if TYPE_CHECKING:
    from .brokers import Broker


@dataclass(frozen=True, slots=True, kw_only=True)
class Chats:
    """A prefix and a subscriptions topic that nobody else uses, so that tests share brokers without seeing each other.

    Attributes:
        prefix: of the topics.
        subscriptions_topic: not under the prefix.
    """

    prefix: str
    subscriptions_topic: str

    @classmethod
    def unique(cls) -> Chats:
        """Return names that were not used before."""
        own = uuid.uuid4().hex[:8]
        return cls(prefix=f"kafka.chat.t{own}.", subscriptions_topic=f"subscriptions-t{own}")

    def topic(self, chat: str) -> str:
        """Return the topic of a chat."""
        return self.prefix + chat

    def settings_for(self, broker: Broker, **overrides: object) -> Settings:
        """Return settings for a service on this broker: on a free port, with quick timeouts where tests wait for them.

        Args:
            broker: which brokers it uses.
            overrides: section and key joined by `__`, as in the environment: `limits__write_seconds=1.0`.
        """
        settings = Settings(
            server=ServerSettings(port=0, drain_seconds=2.0),
            kafka=KafkaSettings(bootstrap_servers=broker.bootstrap, embedded=broker.embedded),
            chats=ChatSettings(prefix=self.prefix),
            subscriptions=SubscriptionSettings(topic=self.subscriptions_topic),
            # A test that does not read from a client for long answers none of its pings.
            limits=Limits(connections=5000, ping_seconds=240.0, pong_seconds=60.0),
        )
        return with_overrides(settings, **overrides)


def with_overrides(settings: Settings, **overrides: object) -> Settings:
    """Return other settings, checked as those from a file are.

    Args:
        settings: for what is not overridden.
        overrides: section and key joined by `__`: `limits__write_seconds=1.0`.
    """
    sections = msgspec.to_builtins(settings)
    for name, value in overrides.items():
        section, key = name.split("__")
        if key not in sections[section]:
            raise TypeError(f"there is no setting {section}.{key}")
        sections[section][key] = value
    return msgspec.convert(sections, Settings)


def message(text: str, *, sender: str = "alice", tag: str | None = None, **more: object) -> bytes:
    """Return the value of a record as the sibling producer writes it.

    Args:
        text: of the message.
        sender: of the message.
        tag: of the message.
        more: further keys of the JSON object.
    """
    return json.dumps({"sender": sender, "text": text, "tag": tag, **more}).encode()
