"""Patterns in rights: the name of a chat or a user, or a prefix with `*` at its end."""

from __future__ import annotations

import re
from dataclasses import dataclass

PATTERN_CHARACTERS = 255
USER = "{user}"

_CHAT = re.compile(r"[A-Za-z0-9._-]*")
# `{user}` matches only names that are one part of a chat's name: no dot, no `*`.
_PLAIN_USER = re.compile(r"[A-Za-z0-9_-]+")


class PatternError(ValueError):
    """A pattern is invalid; the message says why, without the pattern itself."""


@dataclass(frozen=True, slots=True)
class ChatPattern:
    """A pattern of chats, in which `{user}` stands for the client's user.

    Attributes:
        pieces: the parts before, between and after `{user}`; a single part without `{user}`.
        is_prefix: whether the pattern ends with `*`.
    """

    pieces: tuple[str, ...]
    is_prefix: bool

    def covers(self, chat: str, user: str | None) -> bool:
        """Return whether it matches `chat` for `user`; for None, `{user}` matches nothing."""
        if len(self.pieces) == 1:
            name = self.pieces[0]
        elif user is None or not _PLAIN_USER.fullmatch(user):
            return False
        else:
            name = user.join(self.pieces)
        return chat.startswith(name) if self.is_prefix else chat == name


@dataclass(frozen=True, slots=True)
class UserPattern:
    """Users by name.

    Attributes:
        name: in NFC.
        is_prefix: the pattern ends with `*`.
    """

    name: str
    is_prefix: bool

    def covers(self, user: str) -> bool:
        """Return whether `user`, in NFC, is one of them."""
        return user.startswith(self.name) if self.is_prefix else user == self.name


def parse_chat_pattern(text: object) -> ChatPattern:
    """Return the chats that `text` names: `room1`, `room*`, `dm.{user}.*`, `*`.

    Raises:
        PatternError: no text, empty, too long, `*` before its end, or a character that no chat has.
    """
    name, is_prefix = _parse(text)
    pieces = tuple(name.split(USER))
    if not all(_CHAT.fullmatch(piece) for piece in pieces):
        raise PatternError("a chat's name has letters A-Z a-z, digits, dot, underscore and hyphen, besides {user} and a * at its end")
    return ChatPattern(pieces, is_prefix)


def parse_user_pattern(text: object) -> UserPattern:
    """Return the users that `text` names: `ann`, `guest-*`, `*`.

    Raises:
        PatternError: no text, empty, too long, or `*` before its end.
    """
    return UserPattern(*_parse(text))


def _parse(text: object) -> tuple[str, bool]:
    if not isinstance(text, str):
        raise PatternError("a pattern is a string")
    if not 1 <= len(text) <= PATTERN_CHARACTERS:
        raise PatternError(f"a pattern has 1 to {PATTERN_CHARACTERS} characters")
    name = text.removesuffix("*")
    if "*" in name:
        raise PatternError("a * stands at the end of a pattern, once")
    return name, name != text
