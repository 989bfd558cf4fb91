"""WebSockets that answer each text frame with what the route would answer over HTTP, errors included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec
from quart import websocket

from ...delivery.session.dialogue import Answering
from ...errors import BrokerError, RequestError
from ..ports import ADMISSION, ANSWERING, check_room, service
from ..requests.errors import error_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...telemetry.metrics import Telemetry


def answer_messages(
    username: str, answer: Callable[[str], Awaitable[msgspec.Struct]], *, opening: Callable[[], Awaitable[msgspec.Struct]] | None = None
) -> None:
    """Give the client of the current handshake a slot, and have each of its messages answered.

    Args:
        username: the user of the slot; "" if the path names none.
        answer: returns the answer to a message; may raise `RequestError` and `BrokerError`, which are answered, too. Quart's
            request no longer exists then.
        opening: makes a first answer, to the URL itself; None: no such answer.

    Raises:
        Overloaded: no slot is free.
    """
    found = service()
    scope = cast("dict[str, Any]", websocket.scope)
    scope[ANSWERING] = Answering(
        answer=lambda said: _payload(lambda: answer(_text(said)), found.telemetry),
        opening=None if opening is None else lambda: _payload(opening, found.telemetry),
    )
    check_room(scope)
    scope[ADMISSION] = found.admit(username)


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
