"""The frames of a kafka-chat.v1 service: messages and control frames; docs/protocol.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message. Fields after `chat` are None from a service that does not speak kafka-chat.v1.

    Attributes:
        sender: the sender.
        text: the text.
        tag: the tag.
        chat: the chat.
        id: its position, from which a cursor may be built.
        partition: the partition of the chat's topic.
        offset: the offset in the partition.
        time_ms: the record's timestamp, Unix, in milliseconds; None if it has none.
        key: the record's key; bytes if it is not UTF-8.
        headers: the record's headers, in order; values like `key`.
        left_out: those of `key`, `headers` and `time` that the record has but the service does not show.
        frame: the frame, as received.
    """

    sender: str
    text: str
    tag: str | None
    chat: str
    id: str | None = None
    partition: int | None = None
    offset: int | None = None
    time_ms: int | None = None
    key: str | bytes | None = None
    headers: tuple[tuple[str, str | bytes | None], ...] = ()
    left_out: tuple[str, ...] = ()
    frame: str

    @property
    def bare(self) -> str:
        """The frame that a client without kafka-chat.v1 would get."""
        return _encode(_Bare(self.sender, self.text, self.tag, self.chat)).decode()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The client's limits.

    Attributes:
        client_message_bytes: the limit of one message.
        heartbeat_seconds: the interval of heartbeats; None without heartbeats.
    """

    client_message_bytes: int | None = None
    heartbeat_seconds: float | None = None


class Control(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """A control frame."""


class Hello(Control, frozen=True, kw_only=True, tag="hello"):
    """A connection has begun, the first or a later one.

    Attributes:
        session: its id in the service's log.
        user: the user.
        chats: the followed chats.
        resume: `exact`, `gap`, `future` or `none`: how it continues from the cursor.
        cursor: where it continues; None if unknown yet.
        limits: what the service allows.
        user_from: `token` or `anonymous`, from a service that asks for tokens; else None.
        denied: chats that would be followed, and may not be read.
    """

    session: str = ""
    user: str = ""
    chats: tuple[str, ...] = ()
    resume: str = "none"
    cursor: str | None = None
    limits: Limits = Limits()
    user_from: str | None = None
    denied: tuple[str, ...] = ()


class Live(Control, frozen=True, kw_only=True, tag="live"):
    """Everything that existed at the connect has arrived; messages from here on are new."""

    cursor: str | None = None


class Gap(Control, frozen=True, kw_only=True, tag="gap"):
    """Messages that were due are lost.

    Attributes:
        chat: the chat; None if the cluster is a different one.
        partition: the partition of its topic.
        first_lost: the offset that was due.
        first_left: where it continues.
        cause: `retention` (deleted by age, size or command), `recreated` (the topic was deleted, and possibly recreated), `truncated`
            (a broker lost the end of its log), `cluster` (the cursor is of another Kafka cluster, and is ignored).
    """

    chat: str | None
    partition: int | None
    first_lost: int | None
    first_left: int | None
    cause: str


class Skipped(Control, frozen=True, kw_only=True, tag="skipped"):
    """A message that exists but is not delivered.

    Attributes:
        chat: the chat.
        partition: the partition of its topic.
        offset: the offset in the partition.
        id: its position, like a message's; None from an earlier service.
        time_ms: the record's timestamp, Unix, in milliseconds; None if it has none.
        cause: `too_large`: with its `meta` it is larger than `limits.message_bytes`.
    """

    chat: str
    partition: int
    offset: int
    id: str | None = None
    time_ms: int | None = msgspec.field(default=None, name="time")
    cause: str = ""


class Heartbeat(Control, frozen=True, kw_only=True, tag="heartbeat"):
    """A sign of life. The cursor may have moved without a message, past filtered ones: a good time to store it."""

    cursor: str | None = None


class Reconnect(Control, frozen=True, kw_only=True, tag="reconnect"):
    """The service is restarting.

    Attributes:
        after_ms: how long to wait before reconnecting.
        cursor: where to continue.
    """

    after_ms: int = 0
    cursor: str | None = None


class Answer(Control, frozen=True, kw_only=True):
    """A notice that may be the answer to an op.

    Attributes:
        re: the op's `re`; None if it is not an answer.
    """

    re: object = None


class Subscribed(Answer, frozen=True, kw_only=True, tag="subscribed"):
    """The user follows a chat.

    Attributes:
        chat: which.
        exists: whether it has a topic.
        positions: partition -> the offset from which it is delivered.
    """

    chat: str
    exists: bool = False
    positions: dict[int, int] = msgspec.field(default_factory=dict)


class Unsubscribed(Answer, frozen=True, kw_only=True, tag="unsubscribed"):
    """The user no longer follows a chat.

    Attributes:
        chat: which.
        exists: whether it has a topic.
        positions: partition -> the offset up to which it was delivered.
    """

    chat: str
    exists: bool = False
    positions: dict[int, int] = msgspec.field(default_factory=dict)


class Sent(Answer, frozen=True, kw_only=True, tag="sent"):
    """A message is in Kafka.

    Attributes:
        chat: the chat.
        partition: the partition of its topic.
        offset: the offset in the partition.
        id: the id of its `Message`; None if the chat is not followed on that instance.
    """

    chat: str
    partition: int
    offset: int
    id: str | None = None


class Authorized(Answer, frozen=True, kw_only=True, tag="authorized"):
    """The answer to `auth`: a new token is in force."""


class Challenge(Control, frozen=True, kw_only=True, tag="challenge"):
    """The token is about to end."""


class Pong(Answer, frozen=True, kw_only=True, tag="pong"):
    """The answer to `ping`."""


class Failed(Answer, frozen=True, kw_only=True, tag="error"):
    """An op failed.

    Attributes:
        code: an HTTP status.
        message: why, a sentence.
        field: the wrong field of the op, if any.
    """

    code: int = 0
    message: str = ""
    field: str | None = None


class NotUnderstood(Exception):
    """A frame is not part of the protocol; the message is a sentence."""


Event = Message | Hello | Live | Gap | Skipped | Heartbeat | Subscribed | Unsubscribed
"""What iterating over a `Chat` may yield."""


def parse_frame(frame: str | bytes) -> Message | Control | None:
    """Parse a frame of kafka-chat.v1; None for an unknown type, such as one of a later version.

    Raises:
        NotUnderstood: it is not part of the protocol.
    """
    text = _text(frame)
    try:
        told = _decode_frame(text)
        if not isinstance(told.sender, str):
            decode = _CONTROLS.get(_decode_type(told.meta).type)
            return None if decode is None else decode(told.meta)
        return _with_meta(_decode_bare(text), _decode_meta(told.meta), text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotUnderstood(f"a frame is neither a message nor a control frame: {error}") from error


def parse_bare_frame(frame: str | bytes) -> Message:
    """Parse a bare frame of a service without kafka-chat.v1; raise `NotUnderstood` if it is not a message."""
    text = _text(frame)
    try:
        bare = _decode_bare(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotUnderstood(f"a frame is not a message: {error}") from error
    return Message(sender=bare.sender, text=bare.text, tag=bare.tag, chat=bare.chat, frame=text)


class _Bare(msgspec.Struct, frozen=True):
    sender: str
    text: str
    tag: str | None
    chat: str


class _Frame(msgspec.Struct, frozen=True):
    """Any frame: one without a sender is a control frame."""

    sender: str | msgspec.UnsetType = msgspec.UNSET
    meta: msgspec.Raw = msgspec.Raw(b"null")


class _Type(msgspec.Struct, frozen=True):
    type: str


class _Base64(msgspec.Struct, frozen=True):
    base64: bytes


class _Meta(msgspec.Struct, frozen=True):
    id: str
    partition: int
    offset: int
    time: int | None = None
    key: str | _Base64 | None = None
    headers: tuple[tuple[str, str | _Base64 | None], ...] = ()
    left_out: tuple[str, ...] = ()


def _text(frame: str | bytes) -> str:
    if isinstance(frame, bytes):
        raise NotUnderstood("a frame is binary")
    return frame


def _with_meta(bare: _Bare, meta: _Meta, frame: str) -> Message:
    return Message(
        sender=bare.sender,
        text=bare.text,
        tag=bare.tag,
        chat=bare.chat,
        id=meta.id,
        partition=meta.partition,
        offset=meta.offset,
        time_ms=meta.time,
        key=_value(meta.key),
        headers=tuple((name, _value(value)) for name, value in meta.headers),
        left_out=meta.left_out,
        frame=frame,
    )


def _value(value: str | _Base64 | None) -> str | bytes | None:
    return value.base64 if isinstance(value, _Base64) else value


_KINDS: tuple[type[Control], ...] = (
    Hello,
    Live,
    Gap,
    Skipped,
    Heartbeat,
    Reconnect,
    Subscribed,
    Unsubscribed,
    Sent,
    Pong,
    Authorized,
    Challenge,
    Failed,
)
_CONTROLS: Final[Mapping[str, Callable[[msgspec.Raw], Control]]] = {
    str(kind.__struct_config__.tag): msgspec.json.Decoder(kind).decode for kind in _KINDS
}
_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_type = msgspec.json.Decoder(_Type).decode
_decode_bare = msgspec.json.Decoder(_Bare).decode
_decode_meta = msgspec.json.Decoder(_Meta).decode
_encode = msgspec.json.Encoder().encode
