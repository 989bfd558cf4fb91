"""Formats a message for a terminal."""

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
    """Return a message as a line for people: `12:03:04 room1 ann: hello  #tag`.

    A sender's text cannot control the terminal (`harmless`).

    Args:
        message: the message; its timestamp is shown if it has one, with the date if that is not today.
        now: the current time in the reader's zone.
        colours: whether to use colours.
        with_offsets: whether to show the position in Kafka: `room1/0@41`.
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

    Joiners of letters and emoji stay, and every kind of space becomes a space.
    """
    return "".join(character if character.isprintable() or character in _JOINERS else _harmless(character) for character in text)


def _time(time_ms: int | None, now: datetime) -> str:
    when = now
    with contextlib.suppress(ValueError, OverflowError, OSError):  # a producer may set any number as the timestamp
        when = now if time_ms is None else datetime.fromtimestamp(time_ms / 1000, now.tzinfo)
    return f"{when:%H:%M:%S}" if when.date() == now.date() else f"{when:%Y-%m-%d %H:%M:%S}"


def _harmless(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode()


def colours_wanted(stream: TextIO, environ: Callable[[str], str | None] = os.environ.get) -> bool:
    """Return whether to use colours on `stream`: only on a terminal, and not if NO_COLOR is set."""
    return stream.isatty() and not environ("NO_COLOR") and environ("TERM") != "dumb"
