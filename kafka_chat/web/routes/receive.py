"""The WebSocket that brings a user's messages."""

from __future__ import annotations

from typing import Any, NoReturn, cast
from urllib.parse import quote

from quart import Blueprint, request, websocket
from quart_schema import hide, tag

from ...chat.topics import parse_username
from ...errors import RequestError
from ..openapi import add_to_operation, refuses
from ..raw_path import rest_of_path
from ..seams import ADMISSION, service

receive = Blueprint("receive", __name__)

_PATH = "/receive-message/client/<rest:username>"

_FRAMES = """\
Connect a WebSocket, and every message of every chat that the user follows comes as one text frame of JSON, from the
moment the handshake is answered:

```json
{"sender": "bob", "text": "hello", "tag": null, "chat": "room1"}
```

`chat` is the topic without its prefix (`kafka.chat.`), `tag` is null where the message has none. Nothing else is ever
sent. Within a partition of a topic messages come in order, each once; what was sent while the user was away does not
come. A user may have any number of sockets; each gets everything, the sender's own messages included. Subscriptions
made while a socket is open count at once.

In a browser:

```js
const socket = new WebSocket(`ws://${location.host}/receive-message/client/ada`);
socket.onmessage = (event) => console.log(JSON.parse(event.data));
socket.onclose = (event) => console.log(event.code, event.reason);
```

Send nothing: text is discarded, and over 1,000 frames in 10 seconds end the connection. Close codes:

| code | why |
|---|---|
| 1008 | the client said too much |
| 1009 | one of its frames was too large (`limits.client_message_bytes`) |
| 1011 | a bug of this service ended this session |
| 1012 | the service restarts: connect again |
| 1006 | no close frame: the network broke, or the client did not read for `limits.write_seconds`, or answered no ping |

A refusal comes before the handshake is answered, as an HTTP status with a JSON body. Browsers show a script only 1006 then.
"""


class UpgradeRequired(RequestError):
    """426: plain HTTP where only a WebSocket goes."""

    status = 426


@receive.websocket(_PATH)
@tag(["Messages"])
@add_to_operation(
    description=_FRAMES,
    responses={"101": {"description": "The handshake is answered; messages follow as text frames."}},
)
@refuses(400, 426, 503)
async def receive_messages(username: str) -> None:
    """Receive the messages of all chats that a user follows (WebSocket)."""
    name = parse_username(rest_of_path("/receive-message/client/"))
    scope = cast("dict[str, Any]", websocket.scope)
    scope[ADMISSION] = service().admit(name)


@receive.get(_PATH)
@hide
async def no_websocket(username: str) -> NoReturn:
    """Tell somebody who comes without a WebSocket how to connect."""
    parse_username(rest_of_path("/receive-message/client/"))
    scheme = "wss" if request.scheme == "https" else "ws"
    address = f"{scheme}://{request.host or 'HOST'}{quote(request.root_path + request.path)}"
    raise UpgradeRequired(
        f"this address speaks WebSocket; in a browser: new WebSocket({address!r})",
        headers={"Upgrade": "websocket", "Connection": "Upgrade"} if request.http_version == "1.1" else None,
    )
