"""The WebSocket that delivers a user's messages."""

from __future__ import annotations

import time
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, cast

from quart import Blueprint, request, websocket
from quart_schema import hide, tag

from ...access.decision import Need
from ...access.identity import PENDING
from ...chat.names import parse_username
from ...delivery.records.formats import Format
from ...delivery.session.live_socket import NO_TOKEN, NOT_ALLOWED, TRY_LATER, Close
from ...delivery.session.notices import SUBPROTOCOL
from ...errors import RequestError
from ..documents.openapi import add_to_operation, refuses, speaks
from ..documents.parameter_docs import CHATS, CURSOR, FROM, HEARTBEAT, META, REWIND_BY, SENDERS, TAGS, UNTIL
from ..ports import ADMISSION, REFUSAL, check_room, service
from ..requests.chat_request import CURSOR_BODY_BYTES
from ..requests.errors import upgrade_required
from ..requests.needs import Named, identity, needs
from ..requests.parameters import check_times, parse_options
from ..requests.raw_path import rest_of_path
from ..server.policy import FIRST_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...delivery.session.options import SessionOptions

receive = Blueprint("receive", __name__)

_PATH = "/receive-message/client/"
_OLD_PATH = "/receive-messages/user/"

_FRAMES = """\
Connect a WebSocket. From the moment the handshake is answered, every message of every chat that the user follows arrives as
one text frame of JSON:

```json
{"sender": "bob", "text": "hello", "tag": null, "chat": "room1"}
```

`chat` is the topic without its prefix (`kafka.chat.`), `tag` is null where the message has none. Clients that ask
for nothing else get nothing else. Within a partition of a topic messages arrive in order, each once. A user may have any number of
sockets; each gets everything, including the user's own messages. Subscriptions take effect at once on open sockets.

In a browser:

```js
const socket = new WebSocket(new URL("receive-message/client/ada", location).href.replace("http", "ws"));
socket.onmessage = (event) => console.log(JSON.parse(event.data));
socket.onclose = (event) => console.log(event.code, event.reason);
```

Send nothing: frames are discarded, and more than 1,000 in 10 seconds end the connection.

To miss nothing, offer the subprotocol `kafka-chat.v1`, or add `?meta=1`: then each message has `meta` with its `id`, partition,
offset, time, key and headers; frames that have only `meta` say `hello`, `challenge`, `authorized`, `live`, `gap`, `skipped`,
`subscribed`, `unsubscribed`, `sent`, `pong`, `heartbeat`, `reconnect` and `error`; and text frames such as
`{"op":"subscribe","chat":"room1"}`, `{"op":"send",…}` and `{"op":"ping"}` are answered. Reconnect with `?cursor=` and the last
`cursor` received, a dot and the last message's `id`, and you get exactly what followed, from any instance. `/kafka-chat.js` is a
client for web pages that does all that.

With the subprotocol, a bad username or parameter closes the WebSocket with 4400 and the reason, and too many clients that catch
up with 1013; without it, the handshake is refused with 400 or 503.
"""
_ASKED = add_to_operation(parameters=[META, CURSOR, FROM, REWIND_BY, UNTIL, CHATS, TAGS, SENDERS, HEARTBEAT])
_ACCEPTED = "The handshake is answered; messages follow as text frames."


async def _admit(path: str) -> None:
    scope = cast("dict[str, Any]", websocket.scope)
    name, options = _asked(path)
    check_times(options.start, embedded=bool(service().settings.kafka.embedded))
    check_room(scope)
    by = identity()
    existing = () if by is PENDING else await service().named_chats.existing(name, options.chats)
    scope[ADMISSION] = service().admit(name, options, existing=existing, identity=by)
    if options.begins_by_frame:
        scope[FIRST_MESSAGE_BYTES] = CURSOR_BODY_BYTES


def _asked(path: str) -> tuple[str, SessionOptions]:
    """Return whose messages are asked for, and which."""
    name = parse_username(rest_of_path(path))
    now_ms = time.time_ns() // 1_000_000
    chosen = Format.V1 if _offers_v1() else Format.PLAIN
    return name, parse_options(websocket.query_string, format=chosen, names=service().names, now_ms=now_ms)


def _offers_v1() -> bool:
    return SUBPROTOCOL in websocket.requested_subprotocols


def _closing(route: Callable[[str], Awaitable[None]]) -> Callable[[str], Awaitable[None]]:
    """Tell a client that offers kafka-chat.v1 by a close frame why it is refused: a browser hides the status."""

    @wraps(route)
    async def closing(username: str) -> None:
        try:
            await route(username)
        except RequestError as error:
            if not _offers_v1():
                raise
            cast("dict[str, Any]", websocket.scope)[REFUSAL] = Close(code=_CODES.get(error.status, 4400), reason=str(error))

    return closing


def _names(path: str) -> Named:
    name, options = _asked(path)
    return Named(user=name, chats=options.chats, token_follows=options.begins_by_frame)


_CODES = {401: NO_TOKEN, 403: NOT_ALLOWED, 503: TRY_LATER}


@receive.websocket(_PATH + "<rest:username>")
@tag(["Messages"])
@_ASKED
@speaks(_FRAMES, accepted=_ACCEPTED)
@refuses(400, 401, 403, 426, 503)
@_closing
@needs(Need.READ, lambda: _names(_PATH))
async def receive_messages(username: str) -> None:
    """Receive the messages of all chats that a user follows (WebSocket)."""
    await _admit(_PATH)


@receive.websocket(_OLD_PATH + "<rest:username>")
@tag(["Compatibility"])
@_ASKED
@speaks(f"The same as `{_PATH}{{username}}`, which new clients use.\n\n{_FRAMES.replace(_PATH[1:], _OLD_PATH[1:])}", accepted=_ACCEPTED)
@refuses(400, 401, 403, 426, 503)
@_closing
@needs(Need.READ, lambda: _names(_OLD_PATH))
async def receive_messages_of_user(username: str) -> None:
    """Receive the messages of all chats that a user follows (WebSocket)."""
    await _admit(_OLD_PATH)


@receive.get(_PATH + "<rest:username>")
@receive.get(_OLD_PATH + "<rest:username>")
@hide
@needs(Need.PUBLIC)
async def no_websocket(username: str) -> NoReturn:
    """Answer a plain request with how to connect a WebSocket."""
    parse_username(rest_of_path(_PATH if request.path.startswith(_PATH) else _OLD_PATH))
    raise upgrade_required()
