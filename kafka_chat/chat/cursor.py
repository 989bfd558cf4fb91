"""Cursors: texts that say up to where a client has had everything; docs/protocol.md, "Cursor and position"."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

from ..errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

TEXT_LENGTH = 1 << 20  # what is longer is no cursor: 26,000 partitions

_CURSOR, _ID = 1, 2  # the first byte of a part
_CLUSTER_BYTES, _NAME_BYTES, _IDENTITY_BYTES = 4, 4, 16
_VARINT_BYTES = 10  # of 64 bits
_MOST = 1 << 63  # Kafka's offsets are below
_PARTITIONS = 1 << 20
_ABSENT = bytes(_IDENTITY_BYTES)
_UNKNOWN_CLUSTER = bytes(_CLUSTER_BYTES)
_UUID = re.compile(r"[A-Za-z0-9_/+-]{22}")  # Kafka writes them for addresses, its clients do not always


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicOffsets:
    """Where a cursor stands in one topic.

    Attributes:
        identity: the topic's, 16 bytes; None where there was no such topic.
        offsets: partition -> the next offset; a partition that is not named came later.
        unknown: partitions that existed, and whose next offset was not known yet.
        whole: it stands for the whole topic; False where only these partitions are named, by ids of messages.
    """

    identity: bytes | None
    offsets: Mapping[int, int]
    unknown: frozenset[int] = frozenset()
    whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeCursor:
    """What a cursor says.

    Attributes:
        cluster: 4 bytes that tell clusters apart; None where it does not say.
        subscriptions: the next offset of the subscriptions topic, as it was known; 0 where it was not.
        whole: it stands for all that a client followed; False where it is ids of messages alone.
        entries: 4 bytes of the hash of a topic's name -> where it stands in that topic.
    """

    cluster: bytes | None = None
    subscriptions: int = 0
    whole: bool = False
    entries: Mapping[bytes, TopicOffsets] = field(default_factory=dict)

    def is_of(self, cluster: bytes | None) -> bool:
        """Whether it may be of the cluster with this mark: so, too, where either is not known."""
        return self.cluster is None or cluster is None or self.cluster == cluster

    def entry(self, topic: str) -> TopicOffsets | None:
        """Return where it stands in a topic; None where it does not name it."""
        return self.entries.get(topic_mark(topic))


@lru_cache(maxsize=10_000)
def topic_mark(topic: str) -> bytes:
    """Return what a cursor names a topic by: 4 bytes."""
    return sha256(topic.encode()).digest()[:_NAME_BYTES]


def cluster_mark(cluster_id: str) -> bytes:
    """Return what a cursor names a cluster by: 4 bytes."""
    return sha256(cluster_id.encode()).digest()[:_CLUSTER_BYTES]


@lru_cache(maxsize=10_000)
def identity_of(topic_id: str) -> bytes:
    """Return a topic id as 16 bytes: Kafka's own, or a hash of what stands for it where there are none."""
    if _UUID.fullmatch(topic_id):
        return urlsafe_b64decode(topic_id.replace("+", "-").replace("/", "_") + "==")
    return sha256(topic_id.encode()).digest()[:_IDENTITY_BYTES]


def head_of_cursor(cluster: bytes | None, subscriptions: int) -> bytes:
    """Return how a cursor begins; entries by `topic_entry` and `absent_entry` follow, then `text_of`."""
    return bytes((_CURSOR,)) + (cluster or _UNKNOWN_CLUSTER) + _varint(subscriptions)


def topic_entry(topic: str, topic_id: str, positions: Sequence[int | None]) -> bytes:
    """Return an entry for a topic: the next offsets of its partitions from 0 on, None where one is not known."""
    numbers = [_varint(0 if position is None else position + 1) for position in positions]
    return b"".join((topic_mark(topic), identity_of(topic_id), _varint(len(numbers)), *numbers))


def absent_entry(topic: str) -> bytes:
    """Return an entry for a topic that is followed and does not exist."""
    return topic_mark(topic) + _ABSENT + _varint(0)


def text_of(part: bytes) -> str:
    """Return a part of a cursor as text."""
    return urlsafe_b64encode(part).rstrip(b"=").decode()


class MessageIds:
    """The ids of one partition's messages.

    The first 21 bytes are those of the topic, which base64 makes 28 whole characters of, so only the rest is made for each.
    """

    __slots__ = ("_partition", "_prefix")

    def __init__(self, topic: str, topic_id: str, partition: int) -> None:
        self._prefix = urlsafe_b64encode(bytes((_ID,)) + topic_mark(topic) + identity_of(topic_id))
        self._partition = _varint(partition)

    def of(self, offset: int) -> bytes:
        """Return the id of the message at `offset`, ASCII."""
        return self._prefix + urlsafe_b64encode(self._partition + _varint(offset)).rstrip(b"=")


def parse(text: str) -> ResumeCursor:
    """Return what a cursor says: a cursor, ids of messages, or one and the others with dots between.

    Raises:
        RequestError: it is none.
    """
    if len(text) > TEXT_LENGTH:
        raise RequestError(f"cursor has {len(text)} characters; at most {TEXT_LENGTH} are allowed", field="cursor")
    cluster: bytes | None = None
    subscriptions = 0
    whole = False
    entries: dict[bytes, TopicOffsets] = {}
    for part in text.split("."):
        data = _Bytes(_decoded(part))
        kind = data.take(1)[0]
        if kind == _CURSOR:
            said = data.take(_CLUSTER_BYTES)
            cluster = said if said != _UNKNOWN_CLUSTER else cluster
            subscriptions = max(subscriptions, data.varint())
            entries.update(_read_entries(data))
            whole = True
        elif kind == _ID:
            mark, identity, partition, offset = data.take(_NAME_BYTES), data.take(_IDENTITY_BYTES), data.varint(), data.varint()
            data.check_end()
            if identity == _ABSENT or partition >= _PARTITIONS:
                raise _malformed()
            _move(entries, mark, identity, partition, offset + 1)
        else:
            raise RequestError(f"cursor is of version {kind}, which this service does not know; leave it out to begin anew", field="cursor")
    return ResumeCursor(cluster=cluster, subscriptions=subscriptions, whole=whole, entries=entries)


def _read_entries(data: _Bytes) -> Iterator[tuple[bytes, TopicOffsets]]:
    while data:
        mark, identity, count = data.take(_NAME_BYTES), data.take(_IDENTITY_BYTES), data.varint()
        if count > _PARTITIONS or (identity == _ABSENT and count):
            raise _malformed()
        numbers = [data.varint() for _ in range(count)]
        yield (
            mark,
            TopicOffsets(
                identity=None if identity == _ABSENT else identity,
                offsets={partition: number - 1 for partition, number in enumerate(numbers) if number},
                unknown=frozenset(partition for partition, number in enumerate(numbers) if not number),
            ),
        )


def _move(entries: dict[bytes, TopicOffsets], mark: bytes, identity: bytes, partition: int, position: int) -> None:
    """Have a message's id move its partition; that of another topic of this name begins a new place."""
    entry = entries.get(mark)
    if entry is not None and entry.identity == identity:
        moved = {**entry.offsets, partition: position}
        entries[mark] = TopicOffsets(identity=identity, offsets=moved, unknown=entry.unknown - {partition}, whole=entry.whole)
    else:
        # A topic that was absent, or was made anew, while its client was here: all of it is told of by ids since.
        entries[mark] = TopicOffsets(identity=identity, offsets={partition: position}, whole=entry is not None)


class _Bytes:
    """What is left to be read of a part."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        piece = self._data[self._at : self._at + size]
        if len(piece) < size:
            raise _malformed()
        self._at += size
        return piece

    def varint(self) -> int:
        """Return the next number, LEB128."""
        number = 0
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                if number >= _MOST:
                    raise _malformed()
                return number
        raise _malformed()

    def check_end(self) -> None:
        """Nothing may be left."""
        if self:
            raise _malformed()


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    pieces = bytearray()
    while number >= 0x80:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    pieces.append(number)
    return bytes(pieces)


def _decoded(part: str) -> bytes:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", part) or len(part) % 4 == 1:
        raise _malformed()
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _malformed() -> RequestError:
    sentence = "cursor is malformed; send back one that this service gave, whole, or leave it out to begin anew"
    return RequestError(sentence, field="cursor")


def joined(texts: Iterable[str]) -> str:
    """Return several cursors as one; the later one wins."""
    return ".".join(texts)
