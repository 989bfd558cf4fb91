"""Produces clients' messages to their chat's topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio

from ...errors import NotFound, RequestError, TooLarge
from ..ports import EMBEDDED_TOPIC_ID, KeyedRecord, Lookup, Published, Publisher
from .deadlines import answer_due

if TYPE_CHECKING:
    from ...chat.names import ChatNames
    from ...settings.model import Settings

USER_HEADER = "kafka_chat-user"  # of a record: whose token allowed it
EXISTENCE_SECONDS = 3.0  # how long it is believed that a topic exists; the publisher never makes one that is gone by then
REMEMBERED_TOPICS = 10_000


class SentMessage(msgspec.Struct, frozen=True):
    """The value of a record that we write."""

    sender: str
    text: str
    tag: str | None
    topic: str


_encode = msgspec.json.Encoder().encode


class Placed(NamedTuple):
    """The place of a message.

    Attributes:
        at: the acknowledged partition and offset.
        topic_id: the topic's id, at most some seconds old.
    """

    at: Published
    topic_id: str


class Sending:
    """Sends messages for clients.

    Args:
        publisher: produces the records.
        lookup: asks which chats have a topic.
        names: chat <-> topic.
        settings: the limit of a message; and whether the broker is the embedded one, where the first message creates the topic.
    """

    def __init__(self, publisher: Publisher, *, lookup: Lookup, names: ChatNames, settings: Settings) -> None:
        self._publisher = publisher
        self._lookup = lookup
        self._names = names
        self._limits = settings.limits
        self._embedded = bool(settings.kafka.embedded)
        self._seen: dict[str, tuple[float, str]] = {}  # topic -> when it last existed, and its id

    async def send(self, chat: str, sender: str, text: str, tag: str | None, *, by: str | None = None) -> Published:
        """Put one message into its chat, and return where it is; see `place`."""
        return (await self.place(chat, sender, text, tag, by=by)).at

    async def place(self, chat: str, sender: str, text: str, tag: str | None, *, by: str | None = None) -> Placed:
        """Put one message into its chat, and return where it is, in which topic of that name. A sender's messages stay in order.

        After a cancel the message may still be written, within seconds.

        Args:
            chat: a legal name.
            sender: who sends.
            text: what.
            tag: or None.
            by: whose token allowed it, for consumers of the topic; None: no token was asked for.

        Raises:
            RequestError: text that is not Unicode (a lone surrogate).
            NotFound: the chat has no topic.
            TooLarge: over `limits.message_bytes`.
            BrokerUnreachable: not acknowledged in time; see `Publisher`.
        """
        topic = self._names.topic(chat)
        record = self._record(SentMessage(sender, text, tag, topic), by)
        with answer_due(f"sending to {topic}", self._lookup.timeouts) as due:
            topic_id = EMBEDDED_TOPIC_ID if self._embedded else await self._existing(topic)
            due.check_may_write()
            return Placed(await self._publisher.publish(topic, record), topic_id)

    def _record(self, message: SentMessage, by: str | None) -> KeyedRecord:
        try:
            key, value = message.sender.encode(), _encode(message)
        except UnicodeEncodeError as error:
            raise RequestError("sender, text or tag has a lone surrogate, which UTF-8 cannot encode", field="text") from error
        if len(value) > self._limits.message_bytes:
            sentence = f"text is too long: the message would have {len(value)} bytes; limits.message_bytes is {self._limits.message_bytes}"
            raise TooLarge(sentence, field="text")
        return KeyedRecord(key, value, () if by is None else ((USER_HEADER, by.encode()),))

    async def _existing(self, topic: str) -> str:
        """Return the id of a topic; raises `NotFound` if it does not exist."""
        seen, topic_id = self._seen.get(topic, (float("-inf"), ""))
        if trio.current_time() - seen < EXISTENCE_SECONDS:
            return topic_id
        facts = (await self._lookup.describe([topic])).get(topic)
        if facts is None:
            raise NotFound(f"{self._names.chat(topic)} is not a chat: the topic {topic} does not exist", field="chat")
        if len(self._seen) >= REMEMBERED_TOPICS:
            self._seen.clear()
        self._seen[topic] = trio.current_time(), facts.topic_id
        return facts.topic_id
