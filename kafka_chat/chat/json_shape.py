"""Turns msgspec's error for a client's JSON into a plain sentence and the field."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import msgspec

_MISSING = re.compile(r"Object missing required field `(.*?)`( - at `.*`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`( - at `.*`)?", re.DOTALL)
_KIND = re.compile(r"Expected `(.*?)`, got `(.*?)`(?: - at `(.*)`)?", re.DOTALL)
_PLACE = re.compile(r" - at `(.*)`", re.DOTALL)
_KINDS = {
    "str": "a string",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
_SENTENCE, _FIELD = 300, 100  # characters: a client's key may be as long as its message


def said_plainly(error: msgspec.ValidationError, *, what: str) -> tuple[str, str | None]:
    """Return what is wrong as a sentence, such as "text is missing", and the field; None if the whole is wrong.

    Args:
        error: msgspec's error.
        what: the name of the whole: "the body", "the message".
    """
    text = str(error)
    if missing := _MISSING.fullmatch(text):
        return f"{missing[1][:_FIELD]} is missing", missing[1][:_FIELD]
    if unknown := _UNKNOWN.fullmatch(text):
        field = unknown[1][:_FIELD]
        return f"there is no field {field}", field
    if kind := _KIND.fullmatch(text):
        place = (kind[3] or "$").removeprefix("$").removeprefix(".")[:_FIELD]
        return f"{place or what} is {_kind(kind[2])}; {_kind(kind[1])} is needed", _top(place)
    at = _PLACE.search(text)
    return f"{what} is wrong: {text[:_SENTENCE]}", _top(at[1].removeprefix("$").removeprefix(".")[:_FIELD]) if at else None


def _kind(names: str) -> str:
    return " or ".join(_KINDS.get(name, name) for name in names.split(" | "))


def _top(place: str) -> str | None:
    """Return the top-level field of a path such as `chats[...]`."""
    found = re.match(r"\w+", place)
    return found[0] if found else None
