"""Cursors as the first version of the format had them: clients keep some, and they are still read."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256

from kafka_chat.chat.resume_cursor import topic_mark


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


def text(part: bytes) -> str:
    """Return a part as text."""
    return urlsafe_b64encode(part).rstrip(b"=").decode()


def first_cursor(
    cluster: bytes | None, subscriptions: int, topics: Sequence[tuple[str, str, Sequence[int | None]]], absent: Sequence[str] = ()
) -> str:
    """Return a cursor: topics by name, id and next offsets; then those that did not exist."""
    part = b"\1" + (cluster or bytes(4)) + _number(subscriptions)
    for topic, topic_id, positions in topics:
        part += topic_mark(topic) + _id(topic_id) + _number(len(positions))
        part += b"".join(_number(0 if position is None else position + 1) for position in positions)
    return text(part + b"".join(topic_mark(topic) + bytes(17) for topic in absent))


def first_id(topic: str, topic_id: str, partition: int, offset: int) -> str:
    """Return the id of a message."""
    return text(b"\2" + topic_mark(topic) + _id(topic_id) + _number(partition) + _number(offset))
