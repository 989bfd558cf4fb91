"""Does what a client of kafka-chat.v1 asks for by an op, and says what came of it; docs/protocol.md, "Ops"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...chat.partition_key import PartitionKey
from ...chat.resume_cursor import MessageIds
from ...errors import BrokerError, RequestError, SendingOff
from ...loop_sharing import Turn
from ..writes.subscriptions import CHATS_PER_CALL
from .notices import Answer, Failed, OpRefused, Pong, Sent, Subscribed, Unsubscribed, parse_op

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import msgspec

    from ..audience.member import Member
    from .context import SessionContext
    from .notice_queue import NoticeQueue
    from .notices import Op

OPS_WAITING = 32  # ops whose answers are not written yet, which a client may have


async def answers_to(said: str | bytes, *, session: Member, context: SessionContext, notices: NoticeQueue) -> Sequence[Answer]:
    """Do what a client asks for; return the answers, one at least. Expected trouble is an answer.

    Args:
        said: by the client, whether or not it is an op.
        session: the client's.
        context: the service.
        notices: hold back the news of the chats that the op changes, until `add_answers`.
    """
    try:
        op = parse_op(said)
    except OpRefused as refused:
        return [_failed(refused.error, refused.re)]
    try:
        match op.op:
            case "ping":
                return [Pong(re=op.re)]
            case "subscribe":
                return await _subscribe(op, session, context, notices)
            case "unsubscribe":
                return await _unsubscribe(op, session, context, notices)
            case "send":
                return [await _send(op, session, context)]
            case _:
                raise RequestError(f"op is {op.op[:60]!r}; it may be subscribe, unsubscribe, send or ping", field="op")
    except (RequestError, BrokerError) as error:
        return [_failed(error, op.re)]


async def _subscribe(op: Op, session: Member, context: SessionContext, notices: NoticeQueue) -> Sequence[Answer]:
    chats = _chats(op, context)
    notices.begin_op(chats)
    exists = {one.chat: one.exists for one in await context.subscriptions.subscribe(session.username, chats)}
    positions = await _positions(session, chats, context)
    changes = context.subscription_log.chats_of(session.username)
    for chat in chats:
        if not positions[chat] and chat in changes:  # no broker has told yet where it is; it begins where it was subscribed to
            positions[chat] = changes[chat].starts
    return [Subscribed(re=op.re, chat=chat, exists=exists.get(chat, False), positions=positions[chat]) for chat in chats]


async def _unsubscribe(op: Op, session: Member, context: SessionContext, notices: NoticeQueue) -> Sequence[Answer]:
    chats = _chats(op, context)
    notices.begin_op(chats)
    positions = await _positions(session, chats, context)
    await context.subscriptions.unsubscribe(session.username, chats)
    return [Unsubscribed(re=op.re, chat=chat, exists=context.audience.exists(chat), positions=positions[chat]) for chat in chats]


async def _send(op: Op, session: Member, context: SessionContext) -> Answer:
    if context.sending is None:
        raise SendingOff
    if op.chat is None or op.text is None:
        raise RequestError("chat and text are needed to send", field="chat" if op.chat is None else "text")
    chat = context.names.parse(op.chat, field="chat")
    placed = await context.sending.place(chat, session.username, op.text, op.tag)
    at, key = placed.at, PartitionKey(placed.at.topic, placed.topic_id, placed.at.partition)
    log = context.audience.log(key)
    # Its epoch is the latest that was seen there, unless the partition's leader has changed since.
    shown = None if log is None else MessageIds(*key).of(at.offset, log.epochs.before(at.offset + 1)).decode()
    return Sent(re=op.re, chat=chat, partition=at.partition, offset=at.offset, id=shown)


def _chats(op: Op, context: SessionContext) -> list[str]:
    """Return the chats that an op names."""
    named = op.named
    if len(named) > CHATS_PER_CALL:  # asked before each of them is looked at
        raise RequestError(f"chats names {len(named)} chats; {CHATS_PER_CALL} at most are taken in one op", field="chats")
    return [context.names.parse(chat, field="chat") for chat in named]


async def _positions(session: Member, chats: Sequence[str], context: SessionContext) -> dict[str, Mapping[int, int]]:
    """Return chat -> partition -> where a session is."""
    turn = Turn()
    found: dict[str, Mapping[int, int]] = {}
    for chat in chats:
        found[chat] = context.audience.positions(session, chat)
        await turn.share()
    return found


def _failed(error: RequestError | BrokerError, mark: msgspec.Raw) -> Failed:
    field = error.field if isinstance(error, RequestError) else None
    return Failed(re=mark, code=error.status, message=str(error), field="chat" if field == "topic" else field)  # as HTTP has it
