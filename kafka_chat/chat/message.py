"""A chat message, parsed from a record's value and rendered for clients."""

from __future__ import annotations

import enum

import msgspec


class Message(msgspec.Struct, frozen=True, gc=False):
    """A record's value. Other keys are ignored; the topic alone decides the chat.

    Attributes:
        sender: the author.
        text: the text.
        tag: the tag; None if the record has none.
    """

    sender: str
    text: str
    tag: str | None = None


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A message as clients receive it: exactly these four fields, in this order."""

    sender: str
    text: str
    tag: str | None
    chat: str


class Reject(enum.StrEnum):
    """Why a record is not a chat message; the value is the metric's label."""

    TOMBSTONE = "tombstone"
    TOO_LARGE = "too_large"
    BAD_UTF8 = "bad_utf8"
    BAD_JSON = "bad_json"
    WRONG_SHAPE = "wrong_shape"
    TOO_DEEP = "too_deep"
    CANNOT_BE_READ = "cannot_be_read"  # the Kafka client fails on its value
    OUT_OF_ORDER = "out_of_order"  # its offset is not above those of the records before it


class LeftOut(enum.StrEnum):
    """A part of a record that clients do not get; the value is the metric's label, and the name in `meta.left_out`."""

    KEY = "key"
    HEADERS = "headers"
    TIME = "time"
    HEADER_NAME = "header_name"  # shown as U+FFFD, so it is not in `meta.left_out`
    MESSAGE = "message"  # all of it: a notice replaces it


_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder().encode


def parse(value: bytes | None, *, max_bytes: int) -> Message | Reject:
    """Return the message in a record's value, or why there is none.

    Args:
        value: the record's value; None for a tombstone.
        max_bytes: `limits.message_bytes`; a longer value is a reject.
    """
    if value is None:
        return Reject.TOMBSTONE
    if len(value) > max_bytes:
        return Reject.TOO_LARGE
    try:
        if not value.isascii():
            value.decode()  # msgspec does not validate the keys and values that it skips
        return _decode(value)
    except UnicodeDecodeError:
        return Reject.BAD_UTF8
    except msgspec.ValidationError:
        return Reject.WRONG_SHAPE
    except msgspec.DecodeError:
        return Reject.BAD_JSON
    except RecursionError:
        return Reject.TOO_DEEP


def render(message: Message, chat: str) -> bytes:
    """Return `message` as strict JSON in UTF-8: `{"sender","text","tag","chat"}`."""
    return _encode(Delivery(message.sender, message.text, message.tag, chat))
