"""What a service of kafka-chat.v1 says: messages, and what happens to them; docs/protocol.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message. What comes after `chat` is None from a service that does not speak kafka-chat.v1.

    Attributes:
        sender: who wrote it.
        text: what.
        tag: its tag.
        chat: where.
        id: its place: text that a cursor may be made of.
        partition: of the chat's topic.
        offset: there.
        time_ms: the record's timestamp, Unix, in milliseconds; None where it has none.
        key: of the record; bytes where it is not UTF-8.
        headers: of the record, in order, values as `key`.
        left_out: what of `key`, `headers` and `time` the record has and the service does not show, by these names.
        frame: as it came.
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
        """The frame that a client gets that does not ask for kafka-chat.v1."""
        return _encode(_Bare(self.sender, self.text, self.tag, self.chat)).decode()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client has to keep to.

    Attributes:
        client_message_bytes: of what it says at once.
        heartbeat_seconds: how often it is told that all is well; None: not at all.
    """

    client_message_bytes: int | None = None
    heartbeat_seconds: float | None = None


class Control(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What is told beside messages."""


class Hello(Control, frozen=True, kw_only=True, tag="hello"):
    """A connection has begun, the first or a later one.

    Attributes:
        session: its name, as the service's log has it.
        user: whose messages.
        chats: what is followed.
        resume: `exact`, `gap`, `future` or `none`: how it goes on from the cursor.
        cursor: where it goes on; None where that is not known yet.
        limits: what the service allows.
    """

    session: str = ""
    user: str = ""
    chats: tuple[str, ...] = ()
    resume: str = "none"
    cursor: str | None = None
    limits: Limits = Limits()


class Live(Control, frozen=True, kw_only=True, tag="live"):
    """All that was there has come; what comes now is new."""

    cursor: str | None = None


class Gap(Control, frozen=True, kw_only=True, tag="gap"):
    """Messages that were due are gone.

    Attributes:
        chat: where; None where all of it is another Kafka's now.
        partition: of its topic.
        first_lost: the offset that was due.
        first_left: where it goes on.
        cause: `retention` (deleted by age, by size or by hand), `recreated` (the topic was deleted, and perhaps recreated), `truncated`
            (a broker lost the end of its log), `cluster` (the cursor is of another Kafka cluster, and it begins as without one).
    """

    chat: str | None
    partition: int | None
    first_lost: int | None
    first_left: int | None
    cause: str


class Skipped(Control, frozen=True, kw_only=True, tag="skipped"):
    """A message is not delivered, though it is there.

    Attributes:
        chat: where.
        partition: of its topic.
        offset: there.
        id: its place, as a message's; None where an earlier service has not told it.
        time_ms: the record's timestamp, Unix, in milliseconds; None where it has none.
        cause: `too_large`: with its `meta` it is larger than `limits.message_bytes`.
    """

    chat: str
    partition: int
    offset: int
    id: str | None = None
    time_ms: int | None = msgspec.field(default=None, name="time")
    cause: str = ""


class Heartbeat(Control, frozen=True, kw_only=True, tag="heartbeat"):
    """All is well. The cursor may have moved on without a message, through what a filter holds back: a time to keep it."""

    cursor: str | None = None


class Reconnect(Control, frozen=True, kw_only=True, tag="reconnect"):
    """The service restarts.

    Attributes:
        after_ms: how long to stay away.
        cursor: where to come back.
    """

    after_ms: int = 0
    cursor: str | None = None


class Answer(Control, frozen=True, kw_only=True):
    """What may be the answer to an op.

    Attributes:
        re: the op's mark; None where nobody here asked for it.
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
    """The user follows a chat no more.

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
        chat: where.
        partition: of its topic.
        offset: there.
        id: that of the `Message` that comes of it; None where the service has not told it: nobody follows the chat there.
    """

    chat: str
    partition: int
    offset: int
    id: str | None = None


class Pong(Answer, frozen=True, kw_only=True, tag="pong"):
    """The service is there."""


class Failed(Answer, frozen=True, kw_only=True, tag="error"):
    """An op was not done.

    Attributes:
        code: as HTTP has it.
        message: why, a sentence.
        field: the op's field that is wrong.
    """

    code: int = 0
    message: str = ""
    field: str | None = None


class NotUnderstood(Exception):
    """A frame is none of the protocol's: a sentence."""


Event = Message | Hello | Live | Gap | Skipped | Heartbeat | Subscribed | Unsubscribed
"""What a caller is told."""


def parse_frame(frame: str | bytes) -> Message | Control | None:
    """Return what a frame of kafka-chat.v1 says; None for a type that is not known here, as those of later versions are.

    Raises:
        NotUnderstood: it is none of the protocol's.
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
    """Return the message in a frame of a service that does not speak kafka-chat.v1; raises `NotUnderstood` where it is none."""
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


_KINDS: tuple[type[Control], ...] = (Hello, Live, Gap, Skipped, Heartbeat, Reconnect, Subscribed, Unsubscribed, Sent, Pong, Failed)
_CONTROLS: Final[Mapping[str, Callable[[msgspec.Raw], Control]]] = {
    str(kind.__struct_config__.tag): msgspec.json.Decoder(kind).decode for kind in _KINDS
}
_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_type = msgspec.json.Decoder(_Type).decode
_decode_bare = msgspec.json.Decoder(_Bare).decode
_decode_meta = msgspec.json.Decoder(_Meta).decode
_encode = msgspec.json.Encoder().encode
