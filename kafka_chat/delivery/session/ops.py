"""Carries out the ops of a kafka-chat.v1 client, and answers them; docs/protocol.md, "Ops"."""

from __future__ import annotations

from dataclasses import dataclass
from sys import getsizeof
from typing import TYPE_CHECKING, Protocol

import trio

from ...access.decision import Need, Unauthorized, decide
from ...chat.partition_key import PartitionKey
from ...chat.resume_cursor import MessageIds
from ...errors import BrokerError, RequestError, SendingOff
from ...loop_sharing import Turn
from ..audience.member import Rightful
from ..writes.subscriptions import CHATS_PER_CALL
from .deadlines import HasDeadline
from .live_socket import EXPIRED, NOT_ALLOWED, Close
from .notices import Answer, Authorized, Failed, OpRefused, Pong, Sent, Subscribed, Unsubscribed, parse_op

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import msgspec

    from ...access.identity import Identity
    from ..writes.subscriptions import FollowedChat
    from .context import SessionContext
    from .notice_queue import NoticeQueue
    from .notices import Op

OPS_WAITING = 32  # the most ops of a client whose answers are not written yet


class Asking(Rightful, HasDeadline, Protocol):
    """The session of a client that asks."""

    @property
    def session_id(self) -> str:
        """Its id, for the operator."""

    @property
    def username(self) -> str:
        """Whose it is."""

    @property
    def identity(self) -> Identity:
        """Who asks."""

    @property
    def expires_in(self) -> int:
        """How many whole seconds the token lasts."""

    def denied(self) -> list[str]:
        """Return the chats that it would follow if it might read them, sorted."""

    def authorize(self, identity: Identity) -> None:
        """Take another identity."""

    def end(self, close: Close) -> None:
        """End with a close frame."""


class Ops:
    """The ops of one client, answered in order: each starts once the answers to the previous one are written.

    Args:
        session: the client's session.
        context: the parts of the service.
        notices: gets the answers, and until then holds back changes of the op's chats.
    """

    __slots__ = ("_answered", "_bytes", "_context", "_notices", "_session", "_waiting")

    def __init__(self, session: Asking, context: SessionContext, notices: NoticeQueue) -> None:
        self._session = session
        self._context = context
        self._notices = notices
        self._waiting: list[str | bytes] = []  # a list: they are few, and an empty deque takes 600 bytes per socket
        self._bytes = 0
        self._answered: trio.Event | None = None  # set once the answers to the first of them are written

    def add(self, said: str | bytes, nursery: trio.Nursery) -> bool:
        """Answer a message of the client; returns False if too many are waiting.

        Args:
            said: the message, an op or not.
            nursery: for a task that answers, which ends when none is waiting.
        """
        if len(self._waiting) >= OPS_WAITING:
            return False
        self._waiting.append(said)
        self._count(getsizeof(said))
        if len(self._waiting) == 1:
            nursery.start_soon(self._answer)
        return True

    def note_written(self) -> None:
        """Note that all notices popped so far are written."""
        if self._answered is not None:
            self._answered.set()

    def close(self) -> None:
        """Stop counting: the client is gone."""
        self._count(-self._bytes)

    async def _answer(self) -> None:
        while self._waiting:
            written: dict[str, int] = {}
            answers = await _answers(self._waiting[0], self._session, self._context, self._notices, written)
            self._notices.add_answers(answers, written)
            self._answered = trio.Event()
            self._session.follower.wake()
            await self._answered.wait()
            self._count(-getsizeof(self._waiting.pop(0)))
        self._answered = None

    def _count(self, size: int) -> None:
        """Count `size` more bytes of waiting ops, fewer if negative; nothing after `close`."""
        self._bytes += size
        self._context.memory.owe(size)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """An op, and everything needed to carry it out.

    Attributes:
        op: likewise.
        session: of the client that asks.
        context: the service.
        notices: hold back the news of the chats that it changes.
        written: takes the offset of the record of each chat that it changes.
        chats: that the op names, if its kind names any.
    """

    op: Op
    session: Asking
    context: SessionContext
    notices: NoticeQueue
    written: dict[str, int]
    chats: Sequence[str]


@dataclass(frozen=True, slots=True)
class OpKind:
    """A kind of op, and what it needs.

    Attributes:
        do: carries it out.
        need: the right that it needs, with the chats that it names.
        chats: returns the chats that it names, by their names here.
    """

    do: Callable[[_Asked], Awaitable[Sequence[Answer]]]
    need: Need
    chats: Callable[[Op, SessionContext], Sequence[str]]


async def _answers(
    said: str | bytes, session: Asking, context: SessionContext, notices: NoticeQueue, written: dict[str, int]
) -> Sequence[Answer]:
    """Carry out an op; return at least one answer. Expected errors are answers."""
    try:
        op = parse_op(said)
    except OpRefused as refused:
        return [_failed(refused.error, refused.re)]
    try:
        kind = OPS.get(op.op)
        if kind is None or (kind is _AUTH and context.identify is None):
            *most, last = (name for name, known in OPS.items() if known is not _AUTH or context.identify is not None)
            raise RequestError(f"op is {op.op[:60]!r}; it may be {', '.join(most)} or {last}", field="op")
        chats = kind.chats(op, context)
        decide(kind.need, session.identity, user=session.username, chats=chats)
        return await kind.do(_Asked(op=op, session=session, context=context, notices=notices, written=written, chats=chats))
    except (RequestError, BrokerError) as error:
        return [_failed(error, op.re)]


async def _subscribe(asked: _Asked) -> Sequence[Answer]:
    context, user, chats = asked.context, asked.session.username, asked.chats
    asked.notices.begin_op(chats)
    exists = {one.chat: one.exists for one in await _subscribed(asked)}
    positions = await _positions(asked, chats)
    changes = context.subscription_log.chats_of(user)
    for chat in chats:
        if not positions[chat] and chat in changes:  # not resolved by a broker yet; it begins where it was subscribed to
            positions[chat] = changes[chat].starts
    return [Subscribed(re=asked.op.re, chat=chat, exists=bool(exists.get(chat)), positions=positions[chat]) for chat in chats]


async def _subscribed(asked: _Asked) -> Sequence[FollowedChat]:
    return await asked.context.subscriptions.subscribe(
        asked.session.username, asked.chats, written=asked.written.update, may_read=asked.session.may_follow
    )


async def _unsubscribe(asked: _Asked) -> Sequence[Answer]:
    context, chats = asked.context, asked.chats
    asked.notices.begin_op(chats)
    positions = await _positions(asked, chats)
    found: set[str] = set()
    await context.subscriptions.unsubscribe(
        asked.session.username, chats, written=asked.written.update, found=found.update, may_read=asked.session.may_follow
    )
    return [Unsubscribed(re=asked.op.re, chat=chat, exists=chat in found, positions=positions[chat]) for chat in chats]


async def _send(asked: _Asked) -> Sequence[Answer]:
    op, context = asked.op, asked.context
    if context.sending is None:
        raise SendingOff
    if op.chat is None or op.text is None:
        raise RequestError("chat and text are needed to send", field="chat" if op.chat is None else "text")
    [chat] = asked.chats
    placed = await context.sending.place(chat, asked.session.username, op.text, op.tag, by=asked.session.identity.user)
    at, key = placed.at, PartitionKey(placed.at.topic, placed.topic_id, placed.at.partition)
    log = context.audience.log(key)
    # Its epoch is the latest one seen there, unless the partition's leader has changed since.
    shown = None if log is None else MessageIds(*key).of(at.offset, log.epochs.before(at.offset + 1)).decode()
    return [Sent(re=op.re, chat=chat, partition=at.partition, offset=at.offset, id=shown)]


async def _ping(asked: _Asked) -> Sequence[Answer]:
    await trio.lowlevel.checkpoint()
    return [Pong(re=asked.op.re)]


async def _auth(asked: _Asked) -> Sequence[Answer]:
    """Take a new token of the same user. With any other the connection ends, for the old token is not to be used any more."""
    session, context = asked.session, asked.context
    if asked.op.token is None or context.identify is None:
        raise RequestError("token is missing; auth needs one", field="token")
    try:
        identity = await context.identify(asked.op.token.encode("utf-8", "replace"), f"session {session.session_id}")
    except Unauthorized as error:
        session.end(Close(code=EXPIRED.code, reason=str(error)))
        return []
    if session.identity.user != identity.user or not identity.may_speak_for(session.username):
        session.end(Close(code=NOT_ALLOWED, reason="the token is not this user's"))
        return []
    session.authorize(identity)
    context.deadlines.watch(session)
    await context.audience.rights_changed(session)
    return [Authorized(re=asked.op.re, expires_in=session.expires_in, denied=session.denied())]


def _chats(op: Op, context: SessionContext) -> list[str]:
    """Return the chats that an op names."""
    named = op.named
    if len(named) > CHATS_PER_CALL:  # asked before each of them is looked at
        raise RequestError(f"chats names {len(named)} chats; at most {CHATS_PER_CALL} are allowed in one op", field="chats")
    return [context.names.parse(chat, field="chat") for chat in named]


def _chat(op: Op, context: SessionContext) -> list[str]:
    """Return the one chat that `send` names; none if it is missing, for which `_send` has the error."""
    return [] if op.chat is None or context.sending is None else [context.names.parse(op.chat, field="chat")]


def _none(op: Op, context: SessionContext) -> list[str]:
    return []


_AUTH = OpKind(_auth, Need.PUBLIC, _none)

OPS: Mapping[str, OpKind] = {
    "subscribe": OpKind(_subscribe, Need.FOLLOW, _chats),
    "unsubscribe": OpKind(_unsubscribe, Need.USER, _chats),  # leaving needs no right
    "send": OpKind(_send, Need.SEND, _chat),
    "ping": OpKind(_ping, Need.PUBLIC, _none),
    "auth": _AUTH,
}


async def _positions(asked: _Asked, chats: Sequence[str]) -> dict[str, Mapping[int, int]]:
    """Return chat -> partition -> position of a session."""
    turn = Turn()
    found: dict[str, Mapping[int, int]] = {}
    for chat in chats:
        found[chat] = asked.context.audience.positions(asked.session, chat)
        await turn.share()
    return found


def _failed(error: RequestError | BrokerError, mark: msgspec.Raw) -> Failed:
    field = error.field if isinstance(error, RequestError) else None
    return Failed(re=mark, code=error.status, message=str(error), field="chat" if field == "topic" else field)  # like the HTTP API
