"""How a message looks on a terminal."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client import Message

_DIM, _BOLD, _CYAN, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[0m"
_JOINERS = "\u200c\u200d"


def message_line(message: Message, *, now: datetime, colours: bool, with_offsets: bool = False) -> str:
    """Return a message as a person reads it: `12:03:04 room1 ann: hello  #tag`.

    A sender's text cannot control the terminal (`harmless`).

    Args:
        message: whose own time is shown, if it has one, with its date where that is not today.
        now: with the reader's zone.
        colours: whether to use them.
        with_offsets: with where the message is in Kafka: `room1/0@41`.
    """
    chat, sender, text = (harmless(part) for part in (message.chat, message.sender, message.text))
    tag = f"  #{harmless(message.tag)}" if message.tag is not None else ""
    time = _time(message.time_ms, now)
    if with_offsets:
        chat = f"{chat}/{message.partition}@{message.offset}"
    if not colours:
        return f"{time} {chat} {sender}: {text}{tag}"
    return f"{_DIM}{time}{_PLAIN} {_CYAN}{chat}{_PLAIN} {_BOLD}{sender}:{_PLAIN} {text}{_DIM}{tag}{_PLAIN}"


def harmless(text: str) -> str:
    """Return `text` with unprintable characters escaped: control characters, escapes, direction marks.

    What joins letters and emoji stays as it is, and any kind of space is one.
    """
    return "".join(character if character.isprintable() or character in _JOINERS else _harmless(character) for character in text)


def _time(time_ms: int | None, now: datetime) -> str:
    when = now
    with contextlib.suppress(ValueError, OverflowError, OSError):  # a producer may set any number as its record's time
        when = now if time_ms is None else datetime.fromtimestamp(time_ms / 1000, now.tzinfo)
    return f"{when:%H:%M:%S}" if when.date() == now.date() else f"{when:%Y-%m-%d %H:%M:%S}"


def _harmless(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode()


def colours_wanted(stream: TextIO, environ: Callable[[str], str | None] = os.environ.get) -> bool:
    """Return whether to colour what goes to `stream`: only a terminal, and not where NO_COLOR is set."""
    return stream.isatty() and not environ("NO_COLOR") and environ("TERM") != "dumb"
