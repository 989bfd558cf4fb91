"""Reads a librdkafka message, each part guarded, so that a bad record affects only itself.

A message may come from any program, and each call on it may raise: `headers()` does if a header's name is not UTF-8
(confluent_kafka 2.16). A part that raises counts as missing; the record is delivered without it.
"""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..chat.message import LeftOut
from ..chat.resume_cursor import NO_EPOCH
from ..delivery.records.record import Record
from ..delivery.records.record_meta import NAME_NOT_READ
from .connect import SparingLogger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import KafkaError, Message

T = TypeVar("T")

_log = SparingLogger(logging.getLogger("kafka_chat.kafka"))


class Envelope(NamedTuple):
    """Where a message comes from, and whether it is a record or an error.

    Attributes:
        error: None for a record.
        topic: always set for a record; for an error, if it is about a topic.
        partition: the partition, if known.
        offset: that of the record, or of the partition's end; negative if there is none.
    """

    error: KafkaError | None
    topic: str | None
    partition: int | None
    offset: int


class KeyedAt(NamedTuple):
    """A record with its key; without a value it is a tombstone."""

    offset: int
    key: bytes | None
    value: bytes | None


_NOWHERE = Envelope(None, None, None, -1)


def envelope(message: Message) -> Envelope:
    """Return where a message comes from; one that cannot be identified is a record without a topic, which is dropped."""
    try:
        offset = message.offset()
        return Envelope(message.error(), message.topic(), message.partition(), -1 if offset is None else offset)
    except Exception as error:  # noqa: BLE001 - any error is logged, and other records are delivered
        _log.log(logging.WARNING, "a message of the Kafka client does not say where it is from, and is skipped: %r", error)
        return _NOWHERE


def chat_record(message: Message, offset: int) -> Record:
    """Return the record in a message that is not an error. Call it once per message: see `_headers_again`.

    Args:
        message: one from librdkafka.
        offset: the one in its envelope.
    """
    try:
        epoch = message.leader_epoch()
        return Record(
            offset, message.value(), message.timestamp()[1], message.key(), message.headers(),  # type: ignore[arg-type]
            (), NO_EPOCH if epoch is None else epoch,
        )  # fmt: skip
    except Exception:  # noqa: BLE001 - readable parts are delivered, and the others reported
        return _what_can_be_read(message, offset)


def keyed_record(message: Message, offset: int) -> KeyedAt | None:
    """Return the record in a message that is not an error, with its key; None if its key or value cannot be read."""
    try:
        return KeyedAt(offset, _bytes(message.key()), _bytes(message.value()))
    except Exception as error:  # noqa: BLE001 - any error is logged, and other records are delivered
        _log.log(logging.WARNING, "the record of the subscriptions at offset %d cannot be read, and is skipped: %r", offset, error)
        return None


def _what_can_be_read(message: Message, offset: int) -> Record:
    unreadable: list[LeftOut] = []

    def part(what: LeftOut, read: Callable[[], T], missing: T) -> T:
        try:
            return read()
        except Exception:  # noqa: BLE001 - reported by `unreadable`
            unreadable.append(what)
            return missing

    value = part(LeftOut.MESSAGE, message.value, None)
    key = part(LeftOut.KEY, message.key, None)
    time_ms = part(LeftOut.TIME, lambda: message.timestamp()[1], -1)
    headers = part(LeftOut.HEADERS, lambda: _headers_again(message), None)
    if headers is not None and any(name == NAME_NOT_READ for name, _ in headers):
        unreadable.append(LeftOut.HEADER_NAME)
    return Record(offset, value, time_ms, key, headers, tuple(unreadable), leader_epoch(message))


def leader_epoch(message: Message) -> int:
    """Return the leader epoch of a record's batch; `NO_EPOCH`, which disables comparisons, if there is none or it cannot be read."""
    try:
        epoch = message.leader_epoch()
    except Exception as error:  # noqa: BLE001 - any error is logged, and the record is delivered
        _log.log(logging.WARNING, "the leader epoch of a record cannot be read: %r", error)
        return NO_EPOCH
    return NO_EPOCH if epoch is None else epoch


def _headers_again(message: Message) -> Sequence[tuple[str, bytes | None]] | None:
    """Return the headers of a message whose `headers()` has raised; a name that is not UTF-8 is `NAME_NOT_READ`.

    The second call raises nothing, and returns the first one's list, in which such a name is a null pointer: accessing it crashes
    the process. `gc.get_referents` of a pair leaves it out. `tests/edges` fails when this changes.
    """
    pairs = message.headers()
    if pairs is None:
        return None
    found: list[tuple[str, bytes | None]] = []
    for pair in pairs:  # never unpacked
        parts = gc.get_referents(pair)
        name = next((part for part in parts if isinstance(part, str)), NAME_NOT_READ)
        found.append((name, next((part for part in parts if isinstance(part, bytes)), None)))
    return found


def _bytes(content: str | bytes | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content
