"""The control frames and ops of kafka-chat.v1; docs/protocol.md."""

from __future__ import annotations

from random import uniform
from typing import TYPE_CHECKING

import msgspec

from ...chat.json_shape import said_plainly
from ...errors import RequestError
from ..records.formats import text_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...chat.loss_cause import LossCause
    from ...chat.names import ChatNames
    from ...chat.partition_key import PartitionKey
    from ...settings.model import Limits as LimitSettings

SUBPROTOCOL = "kafka-chat.v1"
PLAIN_SUBPROTOCOL = "kafka-chat.plain"  # bare messages, for a browser that shows its token as a further subprotocol
STAY_AWAY_MS = 3000  # clients that must reconnect spread over this time
RE_BYTES = 200  # the most JSON of an op's `re`

_NO_RE = msgspec.Raw()  # an op without `re`; its answer has none, either


class Limits(msgspec.Struct, frozen=True):
    """The client's limits, in `hello`."""

    message_bytes: int
    client_message_bytes: int
    chats_per_user: int
    heartbeat_seconds: float | None


class Auth(msgspec.Struct, frozen=True):
    """How long the token lasts, in whole seconds."""

    expires_in: int


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """The `meta` of a control frame."""


class Hello(Notice, frozen=True, kw_only=True, tag="hello"):
    """First of all.

    Attributes:
        resumable: on event streams: whether their events have ids.
        user_from: where access is on: `token` or `anonymous`.
        denied: where access is on: chats that are subscribed to, or default ones, and may not be read.
        auth: where there is a token.
    """

    session: str
    user: str
    chats: Sequence[str]
    resume: str
    cursor: str | None
    limits: Limits
    resumable: bool | None = None
    user_from: str | None = None
    denied: Sequence[str] | None = None
    auth: Auth | None = None


class Live(Notice, frozen=True, kw_only=True, tag="live"):
    """Everything that existed at the connect has been delivered."""

    cursor: str | None


class Gap(Notice, frozen=True, kw_only=True, tag="gap"):
    """Messages that were due are lost."""

    chat: str
    partition: int
    first_lost: int
    first_left: int
    cause: LossCause


class Answer(Notice, frozen=True, kw_only=True):
    """A notice that may be the answer to an op."""

    re: msgspec.Raw = _NO_RE


class Subscribed(Answer, frozen=True, kw_only=True, tag="subscribed"):
    """The user follows a chat from here on. `cause` is `allowed` where a new token allows to read it."""

    chat: str
    exists: bool
    positions: Mapping[int, int]
    cause: str | None = None


class Unsubscribed(Answer, frozen=True, kw_only=True, tag="unsubscribed"):
    """The user follows a chat no more; it was delivered up to here. `cause` is `denied` where a new token does not allow to read it."""

    chat: str
    exists: bool
    positions: Mapping[int, int]
    cause: str | None = None


class Sent(Answer, frozen=True, kw_only=True, tag="sent"):
    """A message is in Kafka; all clients receive it with this `id`. None: the chat is not followed here."""

    chat: str
    partition: int
    offset: int
    id: str | None = None


class Pong(Answer, frozen=True, kw_only=True, tag="pong"):
    """The answer to `ping`."""


class Authorized(Answer, frozen=True, kw_only=True, tag="authorized"):
    """A new token is in force; `denied` as in `hello`."""

    expires_in: int
    denied: Sequence[str]


class Challenge(Notice, frozen=True, kw_only=True, tag="challenge"):
    """The token ends in so many seconds; the op `auth` brings a new one."""

    expires_in: int


class Failed(Answer, frozen=True, kw_only=True, tag="error"):
    """An op failed, or a frame was not an op."""

    code: int
    message: str
    field: str | None


class Heartbeat(Notice, frozen=True, kw_only=True, tag="heartbeat"):
    """A sign of life."""

    cursor: str | None


class Reconnect(Notice, frozen=True, kw_only=True, tag="reconnect"):
    """The service is restarting."""

    after_ms: int
    cursor: str | None


def limits_told(limits: LimitSettings, heartbeat_seconds: float | None) -> Limits:
    """Return the limits and the heartbeat interval for `hello`."""
    return Limits(limits.message_bytes, limits.client_message_bytes, limits.chats_per_user, heartbeat_seconds)


def gap_in(key: PartitionKey, names: ChatNames, first_lost: int, first_left: int, cause: LossCause) -> Gap:
    """Return the notice of lost messages in a partition."""
    return Gap(chat=names.chat(key.topic), partition=key.partition, first_lost=first_lost, first_left=first_left, cause=cause)


def come_again(cursor: str | None) -> Reconnect:
    """Return the notice that says when to reconnect, at random for each client, and from which cursor."""
    return Reconnect(after_ms=round(uniform(0, STAY_AWAY_MS)), cursor=cursor)


class End(Notice, frozen=True, kw_only=True, tag="end"):
    """An event stream has reached `until`."""

    cursor: str | None


class Op(msgspec.Struct, frozen=True):
    """A request of a client in a text frame. Further keys are ignored.

    Attributes:
        op: which.
        re: a mark that its answer has, too.
        chat: of `subscribe`, `unsubscribe`, `send`.
        chats: of the first two, in place of `chat`.
        text: of `send`.
        tag: of `send`.
        cursor: of `start`.
        token: of `start` and `auth`.
    """

    op: str
    re: msgspec.Raw = _NO_RE
    chat: str | None = None
    chats: list[str] | None = None
    text: str | None = None
    tag: str | None = None
    cursor: str | None = None
    token: str | None = None

    @property
    def named(self) -> list[str]:
        """The chats that it names."""
        if self.chats is not None and self.chat is not None:
            raise RequestError("chat and chats are both given; give only one of them", field="chats")
        if self.chats is not None:
            if not self.chats:
                raise RequestError(f"chats is empty; {self.op} needs at least one chat", field="chats")
            return self.chats
        if self.chat is None:
            raise RequestError(f"chat is missing; {self.op} needs one, or several in chats", field="chat")
        return [self.chat]


class _Mark(msgspec.Struct, frozen=True):
    re: msgspec.Raw = _NO_RE


class OpRefused(Exception):
    """A client's frame is not an op.

    Attributes:
        error: why it is not.
        re: its `re`, if that can be repeated.
    """

    def __init__(self, error: RequestError, re: msgspec.Raw) -> None:
        super().__init__(str(error))
        self.error = error
        self.re = re


_decode_op = msgspec.json.Decoder(Op).decode
_decode_mark = msgspec.json.Decoder(_Mark).decode
_encode = msgspec.json.Encoder().encode


def parse_op(said: str | bytes) -> Op:
    """Parse the op in a client's message; raise `OpRefused` if it is not one."""
    if isinstance(said, bytes):
        raise OpRefused(RequestError("the message is binary; a text frame with a JSON object is needed"), _NO_RE)
    try:
        op = _decode_op(said)
    except msgspec.ValidationError as error:
        raise OpRefused(RequestError(said_plainly(error, what="the op")[0]), _mark_of(said)) from error
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise OpRefused(RequestError('the message is not JSON; an object such as {"op":"ping"} is needed'), _NO_RE) from error
    if len(op.re) > RE_BYTES:
        raise OpRefused(RequestError(f"re has {len(op.re)} bytes; at most {RE_BYTES} are allowed", field="re"), _NO_RE)
    return op


def control(notice: Notice) -> bytes:
    """Return a notice as a text frame."""
    return text_frame(_payload(notice))


def control_event(notice: Notice, *, with_id: bool, retry_ms: int | None = None) -> bytes:
    """Return a notice as an event: one block with `data`, because some clients take a block without it for an empty message.

    Args:
        notice: the notice.
        with_id: whether its cursor is also the event's id; otherwise the id is empty, which makes a browser forget the last one.
        retry_ms: the client's reconnection time in milliseconds; None: unchanged.
    """
    cursor = getattr(notice, "cursor", None)
    event_id = b"id:\n" if not with_id else b"id: %b\n" % cursor.encode() if cursor else b""
    retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
    return b"%b%bevent: %b\ndata: %b\n\n" % (retry, event_id, str(notice.__struct_config__.tag).encode(), _payload(notice))


def _payload(notice: Notice) -> bytes:
    return b'{"meta":' + _encode(notice) + b"}"


def _mark_of(said: str) -> msgspec.Raw:
    try:
        mark = _decode_mark(said).re
    except (msgspec.DecodeError, RecursionError, UnicodeError):  # the first decoder stopped at its error; behind it may be anything
        return _NO_RE
    return mark if len(mark) <= RE_BYTES else _NO_RE
