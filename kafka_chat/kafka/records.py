"""What the core needs of a message of librdkafka's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..delivery.records.batch import Record

if TYPE_CHECKING:
    from confluent_kafka import Message


def chat_record(message: Message) -> Record:
    """Return the record in a message that is no error."""
    return Record(message.offset(), message.value(), message.timestamp()[1], message.key(), message.headers())  # type: ignore[arg-type]
