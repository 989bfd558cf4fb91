"""Explains a cursor in words: `kafka-chat cursor`."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..chat.resume_cursor import NO_EPOCH, NOT_KNOWN, OF_A_PAGE, topic_mark

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..chat.resume_cursor import ResumeCursor, TopicOffsets

_WHOLE_CHARACTERS = 5  # the base64 characters given by the 4 known bytes


def words_of(cursor: ResumeCursor, topics: Sequence[str]) -> Iterator[str]:
    """Yield lines that explain a cursor.

    Args:
        cursor: the cursor; may consist of ids of messages only.
        topics: names to compare with its hashes.
    """
    names = _names(topics)
    cluster = f"of the cluster {cursor.cluster.hex()}" if cursor.cluster is not None else "of an unnamed cluster"
    if cursor.whole:
        yield f"a cursor {cluster}: everything before this is delivered"
        yield _subscription_words(cursor.subscriptions)
    else:
        yield "a position, from ids of messages: everything before this is delivered; other partitions begin as without it"
    for mark, entry in cursor.entries.items():
        yield f"topic {mark.hex()}{_named(names, mark)}{_identity_words(entry)}"
        for partition in sorted({*entry.offsets, *entry.unknown}):
            offset = entry.next(partition)
            yield f"  partition {partition}: " + (
                _unknown_words(entry, partition) if offset is None else _offset_words(entry, partition, offset)
            )
        if cursor.whole and entry.identity is not None and not entry.whole:
            yield "  other partitions begin where the user subscribed, or else as without a cursor"
    if cursor.complete:
        yield "chats subscribed to by then and not named here had no topic; they begin with their first message"


def facts_of(cursor: ResumeCursor, topics: Sequence[str]) -> dict[str, object]:
    """Return the same for programs: numbers, hashes in hexadecimal, None for unknown values."""
    names = _names(topics)
    return {
        "cluster": cursor.cluster.hex() if cursor.cluster is not None else None,
        "subscriptions": cursor.subscriptions if cursor.subscriptions >= 0 else None,
        "whole": cursor.whole,
        "complete": cursor.complete,
        "topics": [
            {
                "hash": mark.hex(),
                "name": names.get(mark),
                "id": _identity(entry),
                "whole": entry.whole,
                "epochs": {str(n): epoch for n in sorted(entry.offsets) if (epoch := entry.epoch(n)) != NO_EPOCH},
                "next": {str(partition): entry.next(partition) for partition in sorted({*entry.offsets, *entry.unknown})},
                "since_ms": {str(n): since_ms for n in sorted(entry.unknown) if (since_ms := entry.since_ms(n)) is not None},
            }
            for mark, entry in cursor.entries.items()
        ],
    }


def unmatched(cursor: ResumeCursor, topics: Sequence[str]) -> list[str]:
    """Return those of the topics that the cursor does not name."""
    return [topic for topic in topics if topic_mark(topic) not in cursor.entries]


def _unknown_words(entry: TopicOffsets, partition: int) -> str:
    since_ms = entry.since_ms(partition)
    if since_ms is None:
        return "next is unknown"
    return f"next is unknown; messages since {datetime.fromtimestamp(since_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ} are due"


def _offset_words(entry: TopicOffsets, partition: int, offset: int) -> str:
    epoch = entry.epoch(partition)
    return f"next is offset {offset}" + ("" if epoch == NO_EPOCH else f", after epoch {epoch} at most")


def _names(topics: Sequence[str]) -> Mapping[bytes, str]:
    return {topic_mark(topic): topic for topic in topics}


def _named(names: Mapping[bytes, str], mark: bytes) -> str:
    return f" ({names[mark]})" if mark in names else ""


def _identity_words(entry: TopicOffsets) -> str:
    identity = _identity(entry)
    return ": there was no such topic" if identity is None else f", an id that begins with {identity}"


def _identity(entry: TopicOffsets) -> str | None:
    """Return the beginning of a topic's id as Kafka's tools show it: a cursor has 32 bits of it, which give five characters."""
    return None if entry.identity is None else urlsafe_b64encode(entry.identity).decode()[:_WHOLE_CHARACTERS]


def _subscription_words(subscriptions: int) -> str:
    if subscriptions == OF_A_PAGE:
        return "from a page of history: it says nothing about subscriptions"
    if subscriptions == NOT_KNOWN:
        return "it does not say up to which offset subscriptions were known"
    return f"subscriptions are known as of offset {subscriptions} of their topic"
