"""How a message looks on a terminal."""

from __future__ import annotations

import json
import os
import unicodedata
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

_DIM, _BOLD, _CYAN, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[0m"
_JOINERS = "\u200c\u200d"


def message_line(frame: str, *, now: datetime, colours: bool) -> str:
    """Return a frame as a person reads it: `12:03:04 room1 ann: hello  #tag`.

    What somebody wrote cannot steer the terminal (`harmless`). A frame that is no message is shown as it is.
    """
    try:
        message = json.loads(frame)
        chat, sender, text = (harmless(str(message[field])) for field in ("chat", "sender", "text"))
        tag = f"  #{harmless(str(message['tag']))}" if message["tag"] is not None else ""
    except (ValueError, KeyError, TypeError):
        return harmless(frame)
    time = f"{now:%H:%M:%S}"
    if not colours:
        return f"{time} {chat} {sender}: {text}{tag}"
    return f"{_DIM}{time}{_PLAIN} {_CYAN}{chat}{_PLAIN} {_BOLD}{sender}:{_PLAIN} {text}{_DIM}{tag}{_PLAIN}"


def harmless(text: str) -> str:
    """Return `text` with everything escaped that is not printable: control characters, escapes, direction marks.

    What joins letters and emoji stays as it is, and any kind of space is one.
    """
    return "".join(character if character.isprintable() or character in _JOINERS else _harmless(character) for character in text)


def _harmless(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode()


def colours_wanted(stream: TextIO, environ: Callable[[str], str | None] = os.environ.get) -> bool:
    """Return whether to colour what goes to `stream`: only a terminal, and not where NO_COLOR is set."""
    return stream.isatty() and not environ("NO_COLOR") and environ("TERM") != "dumb"
