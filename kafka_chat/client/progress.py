"""Tracks how far messages have come: the cursor to resume with, and which messages are duplicates."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from dataclasses import dataclass

from ..chat.resume_cursor import joined, parse
from ..errors import RequestError
from .events import Control, Gap, Hello, Message, Skipped

_TOPIC_CHARACTERS = 28  # the first characters of a message's id: base64 of a version byte and 20 bytes of the topic
_TOPIC_BYTES = slice(1, 9)  # those of them that cursors have of a topic, too


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """The next message of a partition.

    Attributes:
        topic: the identity of the topic, as in cursors; None: any topic.
        offset: the next offset.
        gap: the last reported gap, if no message has come since.
    """

    topic: bytes | None
    offset: int
    gap: Gap | None = None


class Progress:
    """How far messages have come, by partition.

    Args:
        cursor: where it begins; None: where the service says.
    """

    def __init__(self, cursor: str | None = None) -> None:
        self._base = cursor
        self._ids: dict[tuple[str, int], str] = {}  # (chat, partition) -> the id of the last message since the base
        self._due: dict[tuple[str, int], _Due] = {}
        self._begun = _offsets_of(cursor) if cursor is not None else {}

    @property
    def cursor(self) -> str | None:
        """The service's last cursor, joined with the ids of messages since then; None before the first."""
        parts = [*([] if self._base is None else [self._base]), *self._ids.values()]
        return joined(parts) if parts else None

    def note(self, event: Message | Control) -> bool:
        """Move past an event; return False if it has come before."""
        if isinstance(event, Message | Skipped):
            return self._advance(event)
        if isinstance(event, Gap):
            return self._jump(event)
        if isinstance(event, Hello) and event.resume == "none":
            self._forget()
        cursor = getattr(event, "cursor", None)
        if cursor is not None:
            self._base = cursor
            self._ids.clear()
        return True

    def _advance(self, message: Message | Skipped) -> bool:
        if message.id is None or message.partition is None or message.offset is None:
            return True  # it has no position
        topic, at = _topic_of(message.id), (message.chat, message.partition)
        due = self._due.get(at)
        begun = self._begun.get((topic, message.partition), 0)
        recreated = due is not None and due.topic not in (topic, None)  # then offsets start at 0 again
        if message.offset < (begun if due is None else 0 if recreated else due.offset):
            return False
        self._due[at] = _Due(topic=topic, offset=message.offset + 1)
        # Moved to the end, because the last id decides which topic it is if one was recreated.
        self._ids.pop(at, None)
        self._ids[at] = message.id
        return True

    def _jump(self, gap: Gap) -> bool:
        """Continue where a gap ends, which may be before our position."""
        if gap.chat is None or gap.partition is None or gap.first_left is None:
            return True
        at = gap.chat, gap.partition
        due = self._due.get(at)
        if due is not None and due.gap == gap:
            return False  # reported again, because the connection was lost before the next message
        topic = due.topic if due is not None and gap.cause != "recreated" else None
        self._due[at] = _Due(topic=topic, offset=gap.first_left, gap=gap)
        return True

    def _forget(self) -> None:
        """Begin as without a cursor, because the old positions are of another Kafka cluster."""
        self._base = None
        self._ids.clear()
        self._due.clear()
        self._begun.clear()


def _topic_of(message_id: str) -> bytes:
    """Return the identity of a message's topic from its id; for an id of another format, the bytes at that place."""
    try:
        return urlsafe_b64decode(message_id[:_TOPIC_CHARACTERS])[_TOPIC_BYTES]
    except ValueError:
        return message_id[:_TOPIC_CHARACTERS].encode()


def _offsets_of(cursor: str) -> dict[tuple[bytes, int], int]:
    """Return the next offsets of a cursor: (the topic's identity, partition) -> offset."""
    try:
        entries = parse(cursor).entries
    except RequestError:
        return {}  # the service reports an invalid cursor; one of a later version is valid for the service
    return {
        (mark + entry.identity, partition): offset
        for mark, entry in entries.items()
        if entry.identity is not None
        for partition, offset in entry.offsets.items()
    }
