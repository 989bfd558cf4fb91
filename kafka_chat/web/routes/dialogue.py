"""WebSockets that answer each text frame with what the route would answer over HTTP, errors included."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec
from quart import websocket

from ...access.decision import decide
from ...delivery.session.dialogue import Answering
from ...errors import BrokerError, RequestError
from ..ports import ADMISSION, ANSWERING, check_room, service
from ..requests.errors import error_body
from ..requests.needs import identity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...access.decision import Need
    from ...access.identity import Identity
    from ...telemetry.metrics import Telemetry
    from ..requests.needs import Named

M = TypeVar("M")


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages(Generic[M]):
    """The messages of a dialogue: what each of them needs, and how it is answered. May raise `RequestError` and `BrokerError`.

    Attributes:
        need: the right.
        parse: reads one.
        names: returns whom and which chats it names.
        answer: does what it asks for; Quart's request is gone by then.
    """

    need: Need
    parse: Callable[[str], M]
    names: Callable[[M], Named]
    answer: Callable[[M], Awaitable[msgspec.Struct]]


def answer_messages(username: str, messages: Messages[M], *, opening: Callable[[], Awaitable[msgspec.Struct]] | None = None) -> None:
    """Give the client of the current handshake a slot, and have each of its messages answered.

    Args:
        username: the user of the slot; "" if the path names none.
        messages: what each message needs, and what it is answered with. Expected errors are answered, too.
        opening: a first answer, to what stands in the address; None for none. The route has decided that it may be given.

    Raises:
        Overloaded: no slot is free.
    """
    found, by = service(), identity()
    scope = cast("dict[str, Any]", websocket.scope)
    scope[ANSWERING] = Answering(
        answer=lambda said: _payload(partial(_answer, said, messages, by), found.telemetry),
        opening=None if opening is None else lambda: _payload(opening, found.telemetry),
    )
    check_room(scope)
    scope[ADMISSION] = found.admit(username, identity=by)


async def _answer(said: str | bytes, messages: Messages[M], by: Identity) -> msgspec.Struct:
    message = messages.parse(_text(said))
    named = messages.names(message)
    decide(messages.need, by, user=named.user, chats=named.chats)
    return await messages.answer(message)


async def _payload(ask: Callable[[], Awaitable[msgspec.Struct]], telemetry: Telemetry) -> bytes:
    try:
        return msgspec.json.encode(await ask())
    except (RequestError, BrokerError) as error:
        telemetry.request_refused(status=error.status)
        return msgspec.json.encode(error_body(str(error), error.field if isinstance(error, RequestError) else None))


def _text(said: str | bytes) -> str:
    if isinstance(said, bytes):
        raise RequestError("the message is binary; a text frame is needed")
    return said
