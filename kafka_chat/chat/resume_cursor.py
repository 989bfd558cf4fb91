"""Cursors: texts that say up to where a client has had everything; docs/protocol.md, "Cursor and position"."""

from __future__ import annotations

import re
import string
from array import array
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING

from ..errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

TEXT_LENGTH = 1 << 20  # characters; what is longer is no cursor: 26,000 partitions
PARTITIONS = 1 << 15  # that a cursor names, by topics and by ids; 8 bytes each while it is needed. Nobody follows a fifth of that

_CURSOR, _ID = 1, 2  # the first byte of a part
_CLUSTER_BYTES, _NAME_BYTES, _IDENTITY_BYTES = 4, 4, 16
_VARINT_BYTES = 10  # of 64 bits
_TOPIC_PARTITIONS = 1 << 20
_STEP = 1024  # numbers that are read in one step: 10 bytes each at most, so it takes 1 ms at most
_BASE64 = (string.ascii_letters + string.digits + "-_").encode()
_ABSENT = bytes(_IDENTITY_BYTES)
_UNKNOWN_CLUSTER = bytes(_CLUSTER_BYTES)
_UUID = re.compile(r"[A-Za-z0-9_/+-]{22}")  # Kafka writes them for addresses, its clients do not always


class TopicOffsets:
    """Where a cursor stands in one topic. It does not change once it is parsed.

    Attributes:
        identity: the topic's, 16 bytes; None where there was no such topic.
        whole: it stands for the whole topic; False where only these partitions are named, by ids of messages.
    """

    __slots__ = ("_by_ids", "_numbers", "identity", "whole")

    def __init__(self, identity: bytes | None, numbers: array[int] | None = None, *, whole: bool) -> None:
        """Make one that ids of messages may still move.

        Args:
            identity: see above.
            numbers: of its partitions from 0 on the next offset plus 1, or 0 where that was not known.
            whole: see above.
        """
        self.identity = identity
        self.whole = whole
        self._numbers = numbers or ()  # 8 bytes a partition, where a dict has 90: a stranger may name 32,768
        self._by_ids: dict[int, int] | None = None  # partition -> the next offset, where an id says so

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TopicOffsets):
            return NotImplemented
        mine, its = ((one.identity, one.whole, one.offsets, one.unknown) for one in (self, other))
        return mine == its

    __hash__ = None  # type: ignore[assignment]

    def next(self, partition: int) -> int | None:
        """Return the next offset of a partition; None where it was not known, or the partition is not named: it came later."""
        if self._by_ids is not None and partition in self._by_ids:
            return self._by_ids[partition]
        number = self._numbers[partition] if partition < len(self._numbers) else 0
        return number - 1 if number else None

    def is_unknown(self, partition: int) -> bool:
        """Whether a partition existed, and its next offset was not known yet."""
        return partition < len(self._numbers) and self.next(partition) is None

    @property
    def partitions(self) -> int:
        """One more than the highest partition that is named; 0 where none is."""
        return max(len(self._numbers), max(self._by_ids or (-1,)) + 1)

    def names_others(self, partitions: Container[int]) -> bool:
        """Whether it names a partition that is not one of `partitions`."""
        return any(partition not in partitions for partition in chain(range(len(self._numbers)), self._by_ids or ()))

    @property
    def offsets(self) -> dict[int, int]:
        """Partition -> the next offset, of all that are named; made for each reader."""
        return {partition: number - 1 for partition, number in enumerate(self._numbers) if number} | (self._by_ids or {})

    @property
    def unknown(self) -> frozenset[int]:
        """Partitions that existed, and whose next offset was not known yet; made for each reader."""
        unknown = {partition for partition, number in enumerate(self._numbers) if not number}
        return frozenset(unknown.difference(self._by_ids or ()))

    def move(self, partition: int, position: int) -> None:
        """Have a message's id move its partition; only while the cursor is parsed."""
        if self._by_ids is None:
            self._by_ids = {}
        self._by_ids[partition] = position


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
    return head_of_entry(topic, topic_id, len(positions)) + b"".join(map(position_number, positions))


def head_of_entry(topic: str, topic_id: str, partitions: int) -> bytes:
    """Return how an entry for a topic begins; as many by `position_number` follow as it has partitions."""
    return topic_mark(topic) + identity_of(topic_id) + _varint(partitions)


def position_number(position: int | None) -> bytes:
    """Return the next offset of a partition, None where it is not known, as an entry has it."""
    return _varint(0 if position is None else position + 1)


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
    parser = CursorParser(text)
    for _ in parser:
        pass
    return parser.cursor


class CursorParser:
    """Parses a cursor in short steps, for a caller that shares its thread: iterate over it to the end, then take `cursor`.

    The time is linear in the length of the text, whatever it says.

    Args:
        text: any.

    Attributes:
        cursor: what it says, once the iteration has ended.

    Raises:
        RequestError: it is none.
    """

    def __init__(self, text: str) -> None:
        if len(text) > TEXT_LENGTH:
            raise RequestError(f"cursor has {len(text)} characters; at most {TEXT_LENGTH} are allowed", field="cursor")
        self.cursor = ResumeCursor()
        self._text = text
        self._left = PARTITIONS

    def __iter__(self) -> Iterator[None]:
        cluster: bytes | None = None
        subscriptions = 0
        whole = False
        entries: dict[bytes, TopicOffsets] = {}
        for part in _parts(self._text):
            data = _Bytes(_decoded(part))
            kind = data.take(1)[0]
            if kind == _CURSOR:
                said = data.take(_CLUSTER_BYTES)
                cluster = said if said != _UNKNOWN_CLUSTER else cluster
                subscriptions = max(subscriptions, data.varint())
                while data:
                    yield from self._read_entry(data, entries)
                whole = True
            elif kind == _ID:
                mark, identity, partition, offset = data.take(_NAME_BYTES), data.take(_IDENTITY_BYTES), data.varint(), data.varint()
                data.check_end()
                if identity == _ABSENT or partition >= _TOPIC_PARTITIONS:
                    raise _malformed()
                self._count(1)
                _move(entries, mark, identity, partition, offset + 1)
                yield
            else:
                sentence = f"cursor is of version {kind}, which this service does not know; leave it out to begin anew"
                raise RequestError(sentence, field="cursor")
        self.cursor = ResumeCursor(cluster=cluster, subscriptions=subscriptions, whole=whole, entries=entries)

    def _read_entry(self, data: _Bytes, entries: dict[bytes, TopicOffsets]) -> Iterator[None]:
        mark, identity, count = data.take(_NAME_BYTES), data.take(_IDENTITY_BYTES), data.varint()
        if count > _TOPIC_PARTITIONS or (identity == _ABSENT and count):
            raise _malformed()
        self._count(max(count, 1))  # a topic without partitions is held, too
        numbers = array("q")
        while len(numbers) < count:
            data.read_varints(numbers, min(_STEP, count - len(numbers)))
            yield
        entries[mark] = TopicOffsets(None if identity == _ABSENT else identity, numbers, whole=True)
        yield

    def _count(self, partitions: int) -> None:
        self._left -= partitions
        if self._left < 0:
            raise RequestError(f"cursor names too many partitions; at most {PARTITIONS} are allowed", field="cursor")


def _move(entries: dict[bytes, TopicOffsets], mark: bytes, identity: bytes, partition: int, position: int) -> None:
    """Have a message's id move its partition; that of another topic of this name begins a new place."""
    entry = entries.get(mark)
    if entry is None or entry.identity != identity:
        # A topic that was absent, or was made anew, while its client was here: all of it is told of by ids since.
        entry = entries[mark] = TopicOffsets(identity, whole=entry is not None)
    entry.move(partition, position)


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
        numbers = array("q")
        self.read_varints(numbers, 1)
        return numbers[0]

    def read_varints(self, numbers: array[int], count: int) -> None:
        """Append the next `count` numbers. All in one function, for it takes 60 ns a byte so, and 400 with a call for each."""
        data, at, append = self._data, self._at, numbers.append
        try:
            for _ in range(count):
                number = data[at]
                at += 1
                if number >= 0x80:
                    number &= 0x7F
                    for shift in range(7, 7 * _VARINT_BYTES, 7):
                        byte = data[at]
                        at += 1
                        number |= (byte & 0x7F) << shift
                        if byte < 0x80:
                            break
                    else:
                        raise _malformed()
                append(number)
        except (IndexError, OverflowError) as error:  # it ends too early, or a number is above 63 bits
            raise _malformed() from error
        self._at = at

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


def _parts(text: str) -> Iterator[str]:
    """Yield what stands between dots. Not by `split`: a megabyte of dots would become a million strings first."""
    begin = 0
    while (end := text.find(".", begin)) >= 0:
        yield text[begin:end]
        begin = end + 1
    yield text[begin:]


def _decoded(part: str) -> bytes:
    if not part or not part.isascii() or part.encode().translate(None, _BASE64) or len(part) % 4 == 1:
        raise _malformed()
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _malformed() -> RequestError:
    sentence = "cursor is malformed; send back one that this service gave, whole, or leave it out to begin anew"
    return RequestError(sentence, field="cursor")


def joined(texts: Iterable[str]) -> str:
    """Return several cursors as one; the later one wins."""
    return ".".join(texts)
