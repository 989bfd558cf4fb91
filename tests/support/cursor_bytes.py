"""Cursors and ids of messages, byte by byte as docs/protocol.md says: shares no code with the service."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple
from zlib import crc32

from .wire_frames import BrokenStream

CURSOR, ID = 3, 4  # the first byte of a part
CHECK_BYTES = 2  # of CRC-32, at the end of each part of a cursor


class MessageId(NamedTuple):
    """What the id of a message says.

    Attributes:
        mark: of the topic's name, as `mark_of` has it.
        topic: the topic's id.
        partition: its number.
        offset: in the partition.
        epoch: of the leader that the record was written under, and one more.
    """

    mark: bytes
    topic: str
    partition: int
    offset: int
    epoch: int


def read_id(text: str) -> MessageId:
    """Return what an id says; a message's is a cursor of one part, too."""
    data = _checked(_bytes_of(text))
    if data[0] != ID:
        raise BrokenStream(f"this is no id of a message: {text}")
    partition, offset, epoch = _varints(data[21:])
    return MessageId(data[1:5], _text_of(data[5:21]), partition, offset, epoch)


@dataclass(frozen=True)
class ToldPlace:
    """What a cursor says of one topic: how its id begins, and the next offset of each partition, None where that is not known."""

    identity: bytes
    offsets: list[int | None]

    def is_of(self, topic_id: str) -> bool:
        """Return whether it is of the topic with this id."""
        return _bytes_of(topic_id)[:4] == self.identity


def read_cursor(text: str) -> tuple[int, dict[bytes, ToldPlace]]:
    """Return what a cursor of one part says: the next offset of the subscriptions, and the topics by 4 bytes of the hash of their names.

    The offset is negative where the cursor has none.
    """
    data = _checked(_bytes_of(text))
    assert data[0] == CURSOR, text
    subscriptions, at = _varint(data, 6)
    places: dict[bytes, ToldPlace] = {}
    while at < len(data):
        mark = data[at : at + 4]
        count, at = _varint(data, at + 4)
        identity = data[at : at + 4] if count else b""
        at += len(identity)
        offsets: list[int | None] = []
        for _ in range(count):
            number, at = _varint(data, at)
            _, at = _varint(data, at)
            offsets.append(number - 1 if number else None)
        places[mark] = ToldPlace(identity, offsets)
    return subscriptions - 2, places


def next_offset(cursor: str, topic: str, topic_id: str, partition: int) -> int | None:
    """Return what a cursor, whose later parts are ids, says of a partition; None where it says nothing.

    Args:
        cursor: its parts.
        topic: the topic's name.
        topic_id: which topic of this name; "" where topics have no ids.
        partition: its number.
    """
    found = None
    for part in cursor.split("."):
        if _bytes_of(part)[0] == CURSOR:
            told = read_cursor(part)[1].get(mark_of(topic))
            if told is not None and (not topic_id or told.is_of(topic_id)) and partition < len(told.offsets):
                found = told.offsets[partition]
        else:
            said = read_id(part)
            if (said.mark, said.partition) == (mark_of(topic), partition) and topic_id in ("", said.topic):
                found = said.offset + 1
    return found


def mark_of(name: str) -> bytes:
    """Return what stands for the name of a topic."""
    return sha256(name.encode()).digest()[:4]


def first_cursor(
    cluster: bytes | None, subscriptions: int, topics: Sequence[tuple[str, str, Sequence[int | None]]], absent: Sequence[str] = ()
) -> str:
    """Return a cursor of the first version, which is still read: topics by name, id and next offsets; then those that did not exist."""
    part = b"\1" + (cluster or bytes(4)) + _number(subscriptions)
    for topic, topic_id, positions in topics:
        part += mark_of(topic) + _id(topic_id) + _number(len(positions))
        part += b"".join(_number(0 if position is None else position + 1) for position in positions)
    return _text_of(part + b"".join(mark_of(topic) + bytes(17) for topic in absent))


def first_id(topic: str, topic_id: str, partition: int, offset: int) -> str:
    """Return the id of a message of the first version."""
    return _text_of(b"\2" + mark_of(topic) + _id(topic_id) + _number(partition) + _number(offset))


def _number(value: int) -> bytes:
    pieces = bytearray()
    while value >= 0x80:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*pieces, value])


def _id(topic_id: str) -> bytes:
    if re.fullmatch(r"[A-Za-z0-9_/+-]{22}", topic_id):
        return urlsafe_b64decode(topic_id.replace("+", "-").replace("/", "_") + "==")
    return sha256(topic_id.encode()).digest()[:16]


def _bytes_of(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _checked(part: bytes) -> bytes:
    """Return a part without its checksum, which has to be right."""
    data, said = part[:-CHECK_BYTES], part[-CHECK_BYTES:]
    if said != (crc32(data) & 0xFFFF).to_bytes(CHECK_BYTES, "big"):
        raise BrokenStream(f"the checksum of a part of a cursor is wrong: {part.hex()}")
    return data


def _text_of(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        number, at = _varint(data, at)
        yield number
