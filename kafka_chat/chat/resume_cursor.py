"""Cursors: strings that say how far a client has received everything; docs/protocol.md, "Cursor and position"."""

from __future__ import annotations

import re
from array import array
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING
from zlib import crc32

from ..errors import RequestError
from .cursor_bytes import PartBytes, checksum, decoded, encoded, malformed, parts_of, varint

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

TEXT_LENGTH = 1 << 20  # characters; enough for 26,000 partitions
PARTITIONS = 1 << 15  # the most that a cursor may name; 12 bytes each while it is needed; five times what a client can follow

# Values in place of the subscriptions offset.
NOT_KNOWN = -1  # it is unknown how far they were read
OF_A_PAGE = -2  # the cursor is of a history page, which does not depend on them

NO_EPOCH = -1  # an unknown leader epoch

_CURSOR, _ID = 3, 4  # the first byte of a part
_FIRST_CURSOR, _FIRST_ID = 1, 2  # those of the first version, which are still read
_COMPLETE = 1  # a flag
_CLUSTER_BYTES, _NAME_BYTES = 4, 4
_IDENTITY_BYTES = 4  # bytes of a topic's id in a cursor: one recreated topic in 4 billion is taken for the earlier one
_ID_BYTES = 16  # bytes of it in the id of a message, whose first 28 characters distinguish topics
_TOPIC_PARTITIONS = 1 << 20
_ENTRY_BYTES, _NUMBER_BYTES, _EPOCH_BYTES, _BY_ID_BYTES = 300, 8, 4, 250  # in memory; measured
_STEP = 1024  # numbers read in one step: at most 10 bytes each, so at most 1 ms
_ABSENT = bytes(_ID_BYTES)
_UNKNOWN_CLUSTER = bytes(_CLUSTER_BYTES)
_UUID = re.compile(r"[A-Za-z0-9_/+-]{22}")  # URL-safe base64 in Kafka, not in all its clients


class TopicOffsets:
    """A cursor's offsets in one topic; does not change after parsing.

    Attributes:
        identity: the first 4 bytes of the topic's id; None if there was no such topic.
        whole: whether it covers the whole topic; False if it consists of ids of messages, which name only their partitions.
    """

    __slots__ = ("_by_ids", "_epochs", "_numbers", "identity", "whole")

    def __init__(self, identity: bytes | None, numbers: array[int] | None = None, epochs: array[int] | None = None, *, whole: bool) -> None:
        """Make one; ids of messages may still move it.

        Args:
            identity: the attribute.
            numbers: for its partitions from 0 on, the next offset plus 1, or 0 if unknown.
            epochs: for each, the leader epoch of the last record, plus 1, or 0; empty: unknown.
            whole: the attribute.
        """
        self.identity = identity
        self.whole = whole
        self._numbers = numbers or ()  # 8 and 4 bytes per partition instead of 90 in a dict: a client may name 32,768
        self._epochs = epochs or ()
        self._by_ids: dict[int, tuple[int, int]] | None = None  # partition -> the next offset and the epoch, from ids of messages

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TopicOffsets):
            return NotImplemented
        mine, its = ((one.identity, one.whole, one.offsets, one.unknown, [*map(one.epoch, range(one.partitions))]) for one in (self, other))
        return mine == its

    __hash__ = None  # type: ignore[assignment]

    def next(self, partition: int) -> int | None:
        """Return the next offset of a partition; None if it was unknown, or the partition was added later."""
        if self._by_ids is not None and partition in self._by_ids:
            return self._by_ids[partition][0]
        number = self._numbers[partition] if partition < len(self._numbers) else 0
        return number - 1 if number else None

    def epoch(self, partition: int) -> int:
        """Return the leader epoch of the last record of a partition, or a later one of that log; `NO_EPOCH` if unknown."""
        if self._by_ids is not None and partition in self._by_ids:
            return self._by_ids[partition][1]
        return self._epochs[partition] - 1 if partition < len(self._epochs) else NO_EPOCH

    def since_ms(self, partition: int) -> int | None:
        """Return the time since which messages of a partition without a next offset are due, Unix milliseconds; None if unknown."""
        since = self.epoch(partition) if self.is_unknown(partition) else NO_EPOCH
        return None if since == NO_EPOCH else since * 1000

    def is_unknown(self, partition: int) -> bool:
        """Whether a partition existed whose next offset was still unknown."""
        return partition < len(self._numbers) and self.next(partition) is None

    def is_by_id(self, partition: int) -> bool:
        """Whether the offset of a partition comes from the id of a message."""
        return self._by_ids is not None and partition in self._by_ids

    @property
    def partitions(self) -> int:
        """One more than the highest named partition; 0 if there is none."""
        return max(len(self._numbers), max(self._by_ids or (-1,)) + 1)

    def names_others(self, partitions: Container[int]) -> bool:
        """Whether it names a partition that is not in `partitions`."""
        return any(partition not in partitions for partition in chain(range(len(self._numbers)), self._by_ids or ()))

    @property
    def held_bytes(self) -> int:
        """The memory that it takes, including its mark and its entry."""
        arrays = len(self._numbers) * _NUMBER_BYTES + len(self._epochs) * _EPOCH_BYTES
        return _ENTRY_BYTES + arrays + len(self._by_ids or ()) * _BY_ID_BYTES

    @property
    def offsets(self) -> dict[int, int]:
        """Partition -> the next offset, for all named partitions; a new dict each time."""
        by_ids = {partition: position for partition, (position, _) in (self._by_ids or {}).items()}
        return {partition: number - 1 for partition, number in enumerate(self._numbers) if number} | by_ids

    @property
    def unknown(self) -> frozenset[int]:
        """Partitions that existed, but whose next offset was unknown; a new set each time."""
        unknown = {partition for partition, number in enumerate(self._numbers) if not number}
        return frozenset(unknown.difference(self._by_ids or ()))

    def move(self, partition: int, position: int, epoch: int) -> None:
        """Move a partition to a message's id; only while the cursor is parsed."""
        if self._by_ids is None:
            self._by_ids = {}
        self._by_ids[partition] = position, epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeCursor:
    """A parsed cursor.

    Attributes:
        cluster: 4 bytes that identify the cluster; None if unnamed.
        subscriptions: the next offset of the subscriptions topic, or `NOT_KNOWN` or `OF_A_PAGE`.
        whole: whether it covers everything a client followed; False if it is only ids of messages.
        complete: whether chats that were subscribed to by then but are not named begin where their subscription's record says.
        entries: 4 bytes of the hash of a topic's name -> its offsets in that topic.
    """

    cluster: bytes | None = None
    subscriptions: int = NOT_KNOWN
    whole: bool = False
    complete: bool = False
    entries: Mapping[bytes, TopicOffsets] = field(default_factory=dict)

    @property
    def says_nothing(self) -> bool:
        """Whether all its parts are from a later version, and were skipped."""
        return not self.whole and not self.entries

    @property
    def held_bytes(self) -> int:
        """How much memory it takes."""
        return sum(entry.held_bytes for entry in self.entries.values())

    def is_of(self, cluster: bytes | None) -> bool:
        """Whether it may be from the cluster with this mark; True if either is unknown."""
        return self.cluster is None or cluster is None or self.cluster == cluster

    def entry(self, topic: str) -> TopicOffsets | None:
        """Return its offsets in a topic; None if it does not name the topic."""
        return self.entries.get(topic_mark(topic))


@lru_cache(maxsize=10_000)
def topic_mark(topic: str) -> bytes:
    """Return the 4 bytes that stand for a topic in a cursor."""
    return sha256(topic.encode()).digest()[:_NAME_BYTES]


def cluster_mark(cluster_id: str) -> bytes:
    """Return the 4 bytes that stand for a cluster in a cursor."""
    return sha256(cluster_id.encode()).digest()[:_CLUSTER_BYTES]


def identity_of(topic_id: str) -> bytes:
    """Return the first 4 bytes of a topic's id, which tell it from another topic of its name."""
    return _id_of(topic_id)[:_IDENTITY_BYTES]


@lru_cache(maxsize=10_000)
def _id_of(topic_id: str) -> bytes:
    """Return a topic id as 16 bytes: Kafka's own, or a hash of its replacement on a broker without ids."""
    if _UUID.fullmatch(topic_id):
        return urlsafe_b64decode(topic_id.replace("+", "-").replace("/", "_") + "==")
    return sha256(topic_id.encode()).digest()[:_ID_BYTES]


def head_of_cursor(cluster: bytes | None, subscriptions: int, *, complete: bool = False) -> bytes:
    """Return how a cursor begins; entries by `topic_entry` and `absent_entry` follow, then `text_of`.

    Args:
        cluster: see `ResumeCursor`, as the others.
        subscriptions: an offset, `NOT_KNOWN` or `OF_A_PAGE`.
        complete: whether it names everything its user follows, except chats that begin where their subscription's record says.
    """
    return bytes((_CURSOR, _COMPLETE if complete else 0)) + (cluster or _UNKNOWN_CLUSTER) + varint(subscriptions - OF_A_PAGE)


def topic_entry(topic: str, topic_id: str, positions: Sequence[int | None], epochs: Sequence[int] = ()) -> bytes:
    """Return an entry for a topic: the next offsets of its partitions from 0 on, None for unknown ones, and their epochs."""
    places = (place_in(position, epochs[number] if epochs else NO_EPOCH) for number, position in enumerate(positions))
    return head_of_entry(topic, topic_id, len(positions)) + b"".join(places)


def head_of_entry(topic: str, topic_id: str, partitions: int) -> bytes:
    """Return the beginning of an entry for a topic; one `place_in` per partition follows."""
    return topic_mark(topic) + varint(partitions) + (identity_of(topic_id) if partitions else b"")


def place_in(position: int | None, epoch: int) -> bytes:
    """Return the place in a partition as an entry has it.

    Args:
        position: the next offset; None if unknown.
        epoch: the leader epoch of the record before it, or a later one of that log; `NO_EPOCH` if unknown. Without a position: the time
            since which its messages are due, in Unix seconds; `NO_EPOCH` if unknown.
    """
    return varint(0 if position is None else position + 1) + varint(epoch + 1)


def absent_entry(topic: str) -> bytes:
    """Return an entry for a topic that is followed and does not exist."""
    return head_of_entry(topic, "", 0)


def entry_again(topic: str, entry: TopicOffsets) -> bytes:
    """Return an entry for a topic that repeats another cursor's."""
    if entry.identity is None or not entry.partitions:
        return absent_entry(topic)
    places = (place_in(entry.next(partition), entry.epoch(partition)) for partition in range(entry.partitions))
    return topic_mark(topic) + varint(entry.partitions) + entry.identity + b"".join(places)


def text_of(part: bytes) -> str:
    """Return a part of a cursor as text."""
    return encoded(part + checksum(part)).decode()


class MessageIds:
    """The ids of one partition's messages.

    The first 21 bytes are the topic's, exactly 28 characters of base64, so only the rest is made for each message.
    """

    __slots__ = ("_crc", "_partition", "_prefix")

    def __init__(self, topic: str, topic_id: str, partition: int) -> None:
        prefix = bytes((_ID,)) + topic_mark(topic) + _id_of(topic_id)
        self._prefix = encoded(prefix)
        self._crc = crc32(prefix)
        self._partition = varint(partition)

    def of(self, offset: int, epoch: int = NO_EPOCH) -> bytes:
        """Return the id of the message at `offset`, whose record has this leader epoch; ASCII."""
        rest = self._partition + varint(offset) + varint(epoch + 1)
        return self._prefix + encoded(rest + checksum(rest, self._crc))


def parse(text: str) -> ResumeCursor:
    """Parse a cursor, ids of messages, or a cursor followed by ids, joined by dots.

    Raises:
        RequestError: it is not a cursor.
    """
    parser = CursorParser(text)
    for _ in parser:
        pass
    return parser.cursor


class CursorParser:
    """Parses a cursor in short steps, for a caller that shares its thread: iterate over it to the end, then take `cursor`.

    The time is linear in the length of the text. Parts of a later version are skipped.

    Args:
        text: any.

    Attributes:
        cursor: the result, once the iteration has ended.

    Raises:
        RequestError: it is not a cursor.
    """

    def __init__(self, text: str) -> None:
        if len(text) > TEXT_LENGTH:
            raise RequestError(f"cursor has {len(text)} characters; at most {TEXT_LENGTH} are allowed", field="cursor")
        self.cursor = ResumeCursor()
        self._text = text
        self._left = PARTITIONS
        self._cluster: bytes | None = None
        self._subscriptions = OF_A_PAGE
        self._whole = self._complete = False
        self._entries: dict[bytes, TopicOffsets] = {}

    def __iter__(self) -> Iterator[None]:
        for part in parts_of(self._text):
            data = PartBytes(decoded(part))
            kind = data.take(1)[0]
            if kind not in (_FIRST_CURSOR, _FIRST_ID):
                data.check_sum()
            if kind in (_CURSOR, _FIRST_CURSOR):
                self._read_head(data, first_version=kind == _FIRST_CURSOR)
                while data:
                    yield from self._read_entry(data, first_version=kind == _FIRST_CURSOR)
            elif kind in (_ID, _FIRST_ID):
                self._read_id(data, first_version=kind == _FIRST_ID)
            yield
        self.cursor = ResumeCursor(
            cluster=self._cluster,
            subscriptions=self._subscriptions if self._whole else NOT_KNOWN,
            whole=self._whole,
            complete=self._complete,
            entries=self._entries,
        )

    def _read_head(self, data: PartBytes, *, first_version: bool) -> None:
        complete = not first_version and bool(data.take(1)[0] & _COMPLETE)
        said = data.take(_CLUSTER_BYTES)
        if said != _UNKNOWN_CLUSTER:
            if self._cluster not in (None, said):  # offsets of another cluster mean nothing in this one
                self._entries.clear()
                self._subscriptions, self._complete = OF_A_PAGE, False
            self._cluster = said
        number = data.varint()
        # In the first version 0 meant all three: empty, unknown, from a page.
        known = (number or NOT_KNOWN) if first_version else number + OF_A_PAGE
        self._subscriptions = max(self._subscriptions, known)
        self._complete = self._complete or complete
        self._whole = True

    def _read_entry(self, data: PartBytes, *, first_version: bool) -> Iterator[None]:
        mark, identity = data.take(_NAME_BYTES), None
        if first_version:
            named = data.take(_ID_BYTES)
            identity = None if named == _ABSENT else named[:_IDENTITY_BYTES]
        count = data.varint()
        if count > _TOPIC_PARTITIONS or (first_version and identity is None and count):
            raise malformed()
        self._count(max(count, 1))  # a topic without partitions takes memory, too
        if not first_version and count:
            identity = data.take(_IDENTITY_BYTES)
        each = 1 if first_version else 2
        numbers, epochs = array("q"), array("i")
        while len(numbers) < count:
            read = array("q")
            data.read_varints(read, each * min(_STEP // each, count - len(numbers)))
            numbers.extend(read[::each])
            if not first_version:
                _take_epochs(epochs, read[1::2])
            yield
        self._entries[mark] = TopicOffsets(identity, numbers, epochs, whole=True)
        yield

    def _read_id(self, data: PartBytes, *, first_version: bool) -> None:
        mark, identity, partition, offset = data.take(_NAME_BYTES), data.take(_ID_BYTES), data.varint(), data.varint()
        epochs = array("i")
        if not first_version:
            _take_epochs(epochs, array("q", (data.varint(),)))
        data.check_end()
        if identity == _ABSENT or partition >= _TOPIC_PARTITIONS:
            raise malformed()
        self._count(1)
        self._move(mark, identity[:_IDENTITY_BYTES], partition, offset + 1, epochs[0] - 1 if epochs else NO_EPOCH)

    def _move(self, mark: bytes, identity: bytes, partition: int, position: int, epoch: int) -> None:
        """Move a partition to a message's id; an id from another topic of this name begins a new entry."""
        entry = self._entries.get(mark)
        if entry is None or entry.identity != identity:
            # A topic that was absent or recreated while its client was connected: ids cover all of it since.
            entry = self._entries[mark] = TopicOffsets(identity, whole=entry is not None)
        entry.move(partition, position, epoch)

    def _count(self, partitions: int) -> None:
        self._left -= partitions
        if self._left < 0:
            raise RequestError(f"cursor names too many partitions; at most {PARTITIONS} are allowed", field="cursor")


def _take_epochs(epochs: array[int], read: array[int]) -> None:
    """Append epochs, which are numbers of 32 bits."""
    try:
        epochs.extend(array("i", read))
    except OverflowError as error:
        raise malformed() from error


def joined(texts: Iterable[str]) -> str:
    """Join several cursors into one; later ones override earlier ones."""
    return ".".join(texts)
