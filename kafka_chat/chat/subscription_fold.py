"""The chats of every user: the fold of the subscription records, in the order of their log.

A record's key is a user and a chat, its value has the offsets to start from; a tombstone ends the subscription. All instances fold
the same log, so they agree on concurrent changes, and compaction, which keeps the last record of each key, loses nothing.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import msgspec

from ..errors import RequestError
from .names import ChatNames, check_username
from .subscription_change import SubscriptionChange

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1  # version of the values; records of other versions are left to the instances that know them

MANY = 64  # chats of a user that are kept as one byte string: a record is folded in 20 µs

_Number = Annotated[int, msgspec.Meta(ge=0)]


class Skip(enum.StrEnum):
    """Why a record is skipped; the value is the metric's label."""

    BAD_KEY = "bad_key"
    BAD_VALUE = "bad_value"
    UNKNOWN_VERSION = "unknown_version"


class Following:
    """User -> chats.

    There may be a million users, so a user is one byte string (about 360 bytes with three chats), which the garbage collector does not
    track. It has an entry for each chat, `chat`, space, offset, space, value, separated by zero bytes, which occur in none of them.
    Values are decoded on request. A user with more than `MANY` chats is a dict of the same entries, by chat: otherwise each of that
    user's records would cost a walk over all entries.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[str, bytes | dict[str, bytes]] = {}

    def __len__(self) -> int:
        """How many users follow a chat."""
        return len(self._entries)

    def apply(self, key: bytes | None, value: bytes | None, *, offset: int = -1) -> SubscriptionChange | Skip | None:
        """Fold in the next record of the log.

        Args:
            key: made by `record_key`.
            value: made by `record_value`; None for a tombstone.
            offset: the record's offset; negative if unknown.

        Returns:
            The change, or why the record was skipped. None if nothing changes: a second subscription, written by an instance
            that had not seen the first, keeps the first one's `starts`.
        """
        if key is None:
            return None if value is None else Skip.BAD_KEY  # an empty record creates the embedded broker's topic
        pair = _pair(key)
        if pair is None:
            return Skip.BAD_KEY
        username, chat = pair
        present = self._has(username, chat)
        if value is None:
            if not present:
                return None
            self._remove(username, chat)
            return SubscriptionChange(username=username, chat=chat, subscribed=False, starts={}, offset=offset)
        said = _said(value)
        if isinstance(said, Skip):
            return said
        if present:
            return None
        self._add(username, chat, b"%b %d %b" % (chat.encode(), offset, value))
        return _subscribed(username, chat, said, offset)

    def chats_of(self, username: str) -> dict[str, SubscriptionChange]:
        """Return chat -> subscription."""
        subscriptions = [_decoded(username, entry) for entry in self._of(username)]
        return {subscription.chat: subscription for subscription in subscriptions}

    def changes_from(self, before: Following) -> Iterator[SubscriptionChange]:
        """Yield the changes from `before` to this, without record offsets; neither may change meanwhile."""
        for username, entries in before._entries.items():
            if self._entries.get(username) != entries:
                now = self.chats_of(username)
                for chat in before.chats_of(username):
                    if chat not in now:
                        yield SubscriptionChange(username=username, chat=chat, subscribed=False, starts={})
        for username, entries in self._entries.items():
            if before._entries.get(username) != entries:
                then = before.chats_of(username)
                for chat, subscription in self.chats_of(username).items():
                    if chat not in then:
                        yield replace(subscription, offset=-1)

    def _of(self, username: str) -> list[bytes]:
        entries = self._entries.get(username)
        return [] if entries is None else entries.split(b"\0") if isinstance(entries, bytes) else list(entries.values())

    def _has(self, username: str, chat: str) -> bool:
        entries = self._entries.get(username)
        if entries is None or isinstance(entries, dict):
            return entries is not None and chat in entries
        name = chat.encode() + b" "  # names of chats have no spaces
        return entries.startswith(name) or b"\0" + name in entries

    def _add(self, username: str, chat: str, entry: bytes) -> None:
        entries = self._entries.get(username)
        if entries is None:
            self._entries[username] = entry
        elif isinstance(entries, dict):
            entries[chat] = entry
        elif entries.count(b"\0") + 1 < MANY:
            self._entries[username] = entries + b"\0" + entry
        else:
            self._entries[username] = {_chat_of(one): one for one in (*entries.split(b"\0"), entry)}

    def _remove(self, username: str, chat: str) -> None:
        entries = self._entries[username]
        if isinstance(entries, dict):
            del entries[chat]
            if len(entries) > MANY // 2:
                return
            left = list(entries.values())
        else:
            left = [entry for entry in entries.split(b"\0") if _chat_of(entry) != chat]
        if left:
            self._entries[username] = b"\0".join(left)
        else:
            del self._entries[username]


def record_key(username: str, chat: str) -> bytes:
    """Return the key of a user and a chat: always the same bytes, because compaction compares them."""
    return _encode(_Key(username, chat))


def record_value(change: SubscriptionChange) -> bytes | None:
    """Return the value of a subscription with its starts, or a tombstone."""
    return _encode(_Value(VERSION, change.topic_id, dict(change.starts))) if change.subscribed else None


class _Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: str
    chat: str


class _Value(msgspec.Struct, frozen=True):
    """The value of a subscription. Other keys are ignored: later software may add some without a new version number."""

    v: int
    topic_id: str
    starts: dict[_Number, _Number] = msgspec.field(name="from")


class _Version(msgspec.Struct, frozen=True):
    v: int


_encode = msgspec.json.Encoder().encode
_decode_key = msgspec.json.Decoder(_Key).decode
_decode_value = msgspec.json.Decoder(_Value).decode
_decode_version = msgspec.json.Decoder(_Version).decode
_any_topic = ChatNames("")


def _pair(key: bytes) -> tuple[str, str] | None:
    """Return user and chat of a key; None unless it is exactly what `record_key` makes.

    For compaction, another spelling is another key, which could revive an ended subscription.
    """
    try:
        user, chat = msgspec.structs.astuple(_decode_key(key))
        legal = check_username(user) == user and _any_topic.parse(chat, field="chat") == chat
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, RequestError):
        return None
    return (user, chat) if legal and record_key(user, chat) == key else None


def _said(value: bytes) -> _Value | Skip:
    try:
        decoded = _decode_value(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Skip.UNKNOWN_VERSION if _is_of_another_version(value) else Skip.BAD_VALUE
    return decoded if decoded.v == VERSION else Skip.UNKNOWN_VERSION


def _subscribed(username: str, chat: str, said: _Value, offset: int) -> SubscriptionChange:
    return SubscriptionChange(username=username, chat=chat, subscribed=True, topic_id=said.topic_id, starts=said.starts, offset=offset)


def _is_of_another_version(value: bytes) -> bool:
    try:
        return _decode_version(value).v != VERSION
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _chat_of(entry: bytes) -> str:
    return entry.split(b" ", 1)[0].decode()


def _decoded(username: str, entry: bytes) -> SubscriptionChange:
    chat, offset, value = entry.split(b" ", 2)
    return _subscribed(username, chat.decode(), _decode_value(value), int(offset))
