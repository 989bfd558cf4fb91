"""Produces records as bytes of Kafka's protocol, which no Python client agrees to send."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ANSWER_SECONDS = 30.0
NO_TIME = -1  # Kafka's timestamp of a record without one

_PRODUCE, _VERSION, _ALL_REPLICAS = 0, 3, -1
_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRecord:
    """One record, byte by byte.

    Attributes:
        value: None is a tombstone.
        key: None: without.
        headers: name and value; neither need be text, names least of all.
        time_ms: Unix, milliseconds; may be negative, which brokers refuse but for `NO_TIME`.
        offset_delta: how far its offset is from the batch's; None: its number in it. Brokers look at neither order nor size.
    """

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    time_ms: int = 0
    offset_delta: int | None = None


class Refused(Exception):
    """The broker did not take the records; `code` is Kafka's error code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the broker refused the records with error {code}")
        self.code = code


def produce_raw(bootstrap: str, topic: str, records: Iterable[RawRecord], *, partition: int = 0) -> int:
    """Put records into a partition as one batch of magic 2, and return the first one's offset.

    Args:
        bootstrap: the address of the one broker there is, which therefore leads the partition.
        topic: an existing one.
        records: in their order.
        partition: which.

    Raises:
        Refused: the broker did not take them.
    """
    host, _, port = bootstrap.partition(",")[0].rpartition(":")
    batch = record_batch(list(records))
    body = struct.pack(">h", -1) + struct.pack(">hi", _ALL_REPLICAS, int(ANSWER_SECONDS * 1000))
    body += struct.pack(">i", 1) + _string(topic) + struct.pack(">iii", 1, partition, len(batch)) + batch
    head = struct.pack(">hhi", _PRODUCE, _VERSION, 1) + _string("raw")
    with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
        connection.sendall(struct.pack(">i", len(head + body)) + head + body)
        (size,) = struct.unpack(">i", _received(connection, 4))
        answer = _received(connection, size)
    at = 4 + 4 + 2 + len(topic) + 4 + 4  # correlation id, topics, name, partitions, partition
    code, offset = struct.unpack_from(">hq", answer, at)
    if code:
        raise Refused(code)
    return int(offset)


def record_batch(records: Sequence[RawRecord]) -> bytes:
    """Return a record batch of magic 2: not compressed, of no transaction."""
    first_ms = records[0].time_ms
    written = b"".join(_record(number, record, first_ms) for number, record in enumerate(records))
    last_ms = max(record.time_ms for record in records)
    checked = struct.pack(">hiqqqhii", 0, len(records) - 1, first_ms, last_ms, -1, -1, -1, len(records)) + written
    tail = struct.pack(">ibI", -1, 2, _crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(tail)) + tail


def _record(number: int, record: RawRecord, first_ms: int) -> bytes:
    delta = number if record.offset_delta is None else record.offset_delta
    written = b"\0" + _varint(record.time_ms - first_ms) + _varint(delta) + _bytes(record.key) + _bytes(record.value)
    written += _varint(len(record.headers)) + b"".join(_bytes(name) + _bytes(value) for name, value in record.headers)
    return _varint(len(written)) + written


def _bytes(content: bytes | None) -> bytes:
    return _varint(-1) if content is None else _varint(len(content)) + content


def _varint(number: int) -> bytes:
    zigzag = (number << 1) ^ (number >> 63)
    written = bytearray()
    while zigzag > 0x7F:
        written.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    written.append(zigzag)
    return bytes(written)


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _received(connection: socket.socket, size: int) -> bytes:
    answer = b""
    while len(answer) < size:
        if not (piece := connection.recv(size - len(answer))):
            raise ConnectionError("the broker closed the connection instead of an answer")
        answer += piece
    return answer


def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        found.append(byte)
    return tuple(found)


_TABLE = _table()


def _crc32c(data: bytes) -> int:
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
