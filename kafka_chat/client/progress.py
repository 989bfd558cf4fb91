"""Up to where messages have come: the cursor to come back with, and what is no news."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from dataclasses import dataclass

from ..chat.resume_cursor import joined, parse
from ..errors import RequestError
from .events import Control, Gap, Hello, Message, Skipped

_TOPIC_CHARACTERS = 28  # of a message's id: 21 bytes that are the topic's own, base64; the first one is the version's
_TOPIC_BYTES = slice(1, 9)  # of those: what cursors have of a topic, too


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """What is due in a partition.

    Attributes:
        topic: the identity of the topic, as cursors have it; None: whichever comes.
        offset: the next one.
        gap: what was told last to be lost there, where no message has come since.
    """

    topic: bytes | None
    offset: int
    gap: Gap | None = None


class Progress:
    """Up to where messages have come, a partition at a time.

    Args:
        cursor: where it begins; None: wherever the service says.
    """

    def __init__(self, cursor: str | None = None) -> None:
        self._base = cursor
        self._ids: dict[tuple[str, int], str] = {}  # (chat, partition) -> the last message's since the base
        self._due: dict[tuple[str, int], _Due] = {}
        self._begun = _offsets_of(cursor) if cursor is not None else {}

    @property
    def cursor(self) -> str | None:
        """What stands for it: the last cursor that the service told, and the ids of messages since; None before all that."""
        parts = [*([] if self._base is None else [self._base]), *self._ids.values()]
        return joined(parts) if parts else None

    def note(self, event: Message | Control) -> bool:
        """Move on to behind an event, and return whether it is news: it has not been here before."""
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
            return True  # it has no place
        topic, at = _topic_of(message.id), (message.chat, message.partition)
        due = self._due.get(at)
        begun = self._begun.get((topic, message.partition), 0)
        recreated = due is not None and due.topic not in (topic, None)  # then it counts from 0 again
        if message.offset < (begun if due is None else 0 if recreated else due.offset):
            return False
        self._due[at] = _Due(topic=topic, offset=message.offset + 1)
        # To the end: of a topic that was recreated the last id has to tell which one it is.
        self._ids.pop(at, None)
        self._ids[at] = message.id
        return True

    def _jump(self, gap: Gap) -> bool:
        """Go on where a gap ends, which may be before where we are."""
        if gap.chat is None or gap.partition is None or gap.first_left is None:
            return True
        at = gap.chat, gap.partition
        due = self._due.get(at)
        if due is not None and due.gap == gap:
            return False  # the connection was cut before the first message after it
        topic = due.topic if due is not None and gap.cause != "recreated" else None
        self._due[at] = _Due(topic=topic, offset=gap.first_left, gap=gap)
        return True

    def _forget(self) -> None:
        """Begin as without a cursor: what there was is another Kafka's."""
        self._base = None
        self._ids.clear()
        self._due.clear()
        self._begun.clear()


def _topic_of(message_id: str) -> bytes:
    """Return the identity of a message's topic, from its id; an id of another form gives whatever bytes are in that place."""
    try:
        return urlsafe_b64decode(message_id[:_TOPIC_CHARACTERS])[_TOPIC_BYTES]
    except ValueError:
        return message_id[:_TOPIC_CHARACTERS].encode()


def _offsets_of(cursor: str) -> dict[tuple[bytes, int], int]:
    """Return the next offsets that a cursor tells: (the topic's identity, partition) -> offset."""
    try:
        entries = parse(cursor).entries
    except RequestError:
        return {}  # the service tells what is wrong with it; or it is of a later version, which is no business of ours
    return {
        (mark + entry.identity, partition): offset
        for mark, entry in entries.items()
        if entry.identity is not None
        for partition, offset in entry.offsets.items()
    }
