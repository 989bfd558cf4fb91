"""The rights of a client: what it may do with which chats."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

from .patterns import PatternError, parse_chat_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .patterns import ChatPattern

PATTERNS = 1000  # the most patterns of a claim; a token of 8 KiB has room for more, and each decision tries all


class Action(enum.StrEnum):
    """An action on a chat."""

    READ = "read"
    SEND = "send"
    CREATE = "create"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """The chats that may be read, sent to and created, by their patterns."""

    read: tuple[ChatPattern, ...] = ()
    send: tuple[ChatPattern, ...] = ()
    create: tuple[ChatPattern, ...] = ()

    def allow(self, action: Action, chat: str, user: str | None) -> bool:
        """Return whether `user` may do this with `chat`; None: a client without a token."""
        patterns: tuple[ChatPattern, ...] = getattr(self, action.value)
        return any(pattern.covers(chat, user) for pattern in patterns)

    def __add__(self, other: Rights) -> Rights:
        """Return the rights of both together; one of them itself if the other has none, as each connection keeps its rights."""
        if NOTHING in (self, other):
            return other if self == NOTHING else self
        return Rights(**{field.name: (*getattr(self, field.name), *getattr(other, field.name)) for field in fields(self)})

    @classmethod
    def parse(cls, claimed: object) -> Self:
        """Return the rights in a claim or a setting.

        Args:
            claimed: a list of patterns of chats to read; or a mapping of `read`, `send`, `create` to such lists.

        Raises:
            PatternError: it is something else, or contains an invalid pattern.
        """
        lists = claimed if isinstance(claimed, dict) else {Action.READ.value: claimed}
        if lists.keys() - set(Action):
            raise PatternError("there is another right than read, send and create")
        return cls(**_patterns(lists))


def _patterns(lists: Mapping[str, object]) -> dict[str, tuple[ChatPattern, ...]]:
    found = {}
    for action, patterns in lists.items():
        if not isinstance(patterns, list | tuple):
            raise PatternError("a list of patterns is needed")
        found[str(action)] = tuple(map(parse_chat_pattern, patterns))
    if sum(map(len, found.values())) > PATTERNS:
        raise PatternError(f"at most {PATTERNS} patterns are allowed")
    return found


NOTHING = Rights()
