"""Carries out the ops of a kafka-chat.v1 client, and answers them; docs/protocol.md, "Ops"."""

from __future__ import annotations

from dataclasses import dataclass
from sys import getsizeof
from typing import TYPE_CHECKING

import trio

from ...chat.partition_key import PartitionKey
from ...chat.resume_cursor import MessageIds
from ...errors import BrokerError, RequestError, SendingOff
from ...loop_sharing import Turn
from ..writes.subscriptions import CHATS_PER_CALL
from .notices import Answer, Failed, OpRefused, Pong, Sent, Subscribed, Unsubscribed, parse_op

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import msgspec

    from ..audience.member import Member
    from .context import SessionContext
    from .notice_queue import NoticeQueue
    from .notices import Op

OPS_WAITING = 32  # the most ops of a client whose answers are not written yet


class Ops:
    """The ops of one client, answered in order: each starts once the answers to the previous one are written.

    Args:
        session: the client's session.
        context: the parts of the service.
        notices: gets the answers, and until then holds back changes of the op's chats.
    """

    __slots__ = ("_answered", "_bytes", "_context", "_notices", "_session", "_waiting")

    def __init__(self, session: Member, context: SessionContext, notices: NoticeQueue) -> None:
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
        op: the op.
        session: the client's session.
        context: the parts of the service.
        notices: holds back the changes of its chats.
        written: gets the offset of the record for each chat that it changes.
    """

    op: Op
    session: Member
    context: SessionContext
    notices: NoticeQueue
    written: dict[str, int]


async def _answers(
    said: str | bytes, session: Member, context: SessionContext, notices: NoticeQueue, written: dict[str, int]
) -> Sequence[Answer]:
    """Carry out an op; return at least one answer. Expected errors are answers."""
    try:
        op = parse_op(said)
    except OpRefused as refused:
        return [_failed(refused.error, refused.re)]
    try:
        do = _OPS.get(op.op)
        if do is None:
            *most, last = _OPS
            raise RequestError(f"op is {op.op[:60]!r}; it may be {', '.join(most)} or {last}", field="op")
        return await do(_Asked(op=op, session=session, context=context, notices=notices, written=written))
    except (RequestError, BrokerError) as error:
        return [_failed(error, op.re)]


async def _subscribe(asked: _Asked) -> Sequence[Answer]:
    context, user, chats = asked.context, asked.session.username, _chats(asked)
    asked.notices.begin_op(chats)
    exists = {one.chat: one.exists for one in await context.subscriptions.subscribe(user, chats, written=asked.written.update)}
    positions = await _positions(asked, chats)
    changes = context.subscription_log.chats_of(user)
    for chat in chats:
        if not positions[chat] and chat in changes:  # not resolved by a broker yet; it begins where it was subscribed to
            positions[chat] = changes[chat].starts
    return [Subscribed(re=asked.op.re, chat=chat, exists=exists.get(chat, False), positions=positions[chat]) for chat in chats]


async def _unsubscribe(asked: _Asked) -> Sequence[Answer]:
    context, chats = asked.context, _chats(asked)
    asked.notices.begin_op(chats)
    positions = await _positions(asked, chats)
    found: set[str] = set()
    await context.subscriptions.unsubscribe(asked.session.username, chats, written=asked.written.update, found=found.update)
    return [Unsubscribed(re=asked.op.re, chat=chat, exists=chat in found, positions=positions[chat]) for chat in chats]


async def _send(asked: _Asked) -> Sequence[Answer]:
    op, context = asked.op, asked.context
    if context.sending is None:
        raise SendingOff
    if op.chat is None or op.text is None:
        raise RequestError("chat and text are needed to send", field="chat" if op.chat is None else "text")
    chat = context.names.parse(op.chat, field="chat")
    placed = await context.sending.place(chat, asked.session.username, op.text, op.tag)
    at, key = placed.at, PartitionKey(placed.at.topic, placed.topic_id, placed.at.partition)
    log = context.audience.log(key)
    # Its epoch is the latest one seen there, unless the partition's leader has changed since.
    shown = None if log is None else MessageIds(*key).of(at.offset, log.epochs.before(at.offset + 1)).decode()
    return [Sent(re=op.re, chat=chat, partition=at.partition, offset=at.offset, id=shown)]


async def _ping(asked: _Asked) -> Sequence[Answer]:
    await trio.lowlevel.checkpoint()
    return [Pong(re=asked.op.re)]


_OPS: Mapping[str, Callable[[_Asked], Awaitable[Sequence[Answer]]]] = {
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "send": _send,
    "ping": _ping,
}


def _chats(asked: _Asked) -> list[str]:
    """Return the chats that an op names."""
    named = asked.op.named
    if len(named) > CHATS_PER_CALL:  # checked before looking at each of them
        raise RequestError(f"chats names {len(named)} chats; at most {CHATS_PER_CALL} are allowed in one op", field="chats")
    return [asked.context.names.parse(chat, field="chat") for chat in named]


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
