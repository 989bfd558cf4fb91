"""The chats a user follows: list, subscribe, unsubscribe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from quart import Blueprint, Response, request, websocket
from quart_schema import document_response, hide, tag
from werkzeug.exceptions import MethodNotAllowed

from ...chat.names import parse_username
from ...delivery.writes.subscriptions import FollowedChat  # noqa: TC001 - msgspec reads the annotation
from ...errors import RequestError
from ..documents.openapi import add_to_operation, example, refuses, speaks
from ..ports import service
from ..requests.bodies import json_answer
from ..requests.parameters import check_count
from ..requests.raw_path import decoded_name, rest_of_path
from .dialogue import answer_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from werkzeug.datastructures import MultiDict

subscribing = Blueprint("subscribing", __name__)

_PATH = "/subscribing/<rest:username>"


class Following(msgspec.Struct, frozen=True):
    """All chats that the user follows now.

    Attributes:
        username: in Unicode NFC.
        chats: sorted by chat.
    """

    username: str
    chats: list[FollowedChat]


_EXAMPLE = {
    "username": "ada",
    "chats": [
        {"chat": "global", "topic": "kafka.chat.global", "exists": True, "default": True},
        {"chat": "room1", "topic": "kafka.chat.room1", "exists": False, "default": False},
    ],
}


_FRAMES = """\
**As a WebSocket:** connect to subscribe a user to chats one by one; each answer says what the user then follows. Send each topic or chat
as one text frame, bare:

```
room1
```

Each is answered by one text frame, in order, with what `POST /subscribing/{username}` answers:

```json
{"username": "ada", "chats": [{"chat": "global", "topic": "kafka.chat.global", "exists": true, "default": true}, {"chat": "room1", "topic": "kafka.chat.room1", "exists": false, "default": false}]}
```

If it was not done, the answer says why, and the WebSocket stays open:

```json
{"error": "topic is 'room 1'; a chat is made of letters A-Z a-z, digits, dot, underscore and hyphen", "field": "topic"}
```

`?topic=room1` in the address, which may be repeated, is answered by a first frame; without it nothing is sent unasked.
Subscriptions outlast the WebSocket. In a browser:

```js
const socket = new WebSocket(new URL("subscribing/ada?topic=room1", location).href.replace("http", "ws"));
socket.onmessage = (event) => console.log(JSON.parse(event.data));
socket.onopen = () => socket.send("room2");
```
"""  # noqa: E501 - an answer is one line


def _topics(description: str, *, required: bool) -> dict[str, Any]:
    return {
        "name": "topic",
        "in": "query",
        "required": required,
        "description": description,
        "schema": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 100},
        "style": "form",
        "explode": True,
        "example": ["kafka.chat.room1"],
    }


@subscribing.get(_PATH)
@tag(["Subscriptions"])
@document_response(Following)
@example(_EXAMPLE)
@speaks(_FRAMES, accepted="The handshake of a WebSocket is answered; then each of its messages is answered by one.")
@refuses(400, 403, 405, 503)
async def following(username: str) -> Response:
    """List the chats that a user follows, or subscribe to one after the other (WebSocket).

    An unknown user follows the default chats. `topic` is refused here, so that nobody takes a list for a subscription;
    the WebSocket accepts it.
    """
    name = _username()
    if _asked_topics() is not None:
        raise MethodNotAllowed(["POST", "DELETE"], f"{request.method} lists; POST with ?topic= subscribes, DELETE unsubscribes")
    return json_answer(Following(name, await service().subscriptions.following(name)))


@subscribing.post(_PATH)
@tag(["Subscriptions"])
@add_to_operation(parameters=[_topics("A topic or a chat; may be repeated.", required=True)])
@document_response(Following)
@example(_EXAMPLE)
@refuses(400, 403, 409, 413, 503)
async def subscribe(username: str) -> Response:
    """Subscribe a user to chats, to all of them or to none.

    The user's open WebSockets follow them at once, on every instance. A chat need not exist: it is followed from its first
    message on. Chats that are already followed stay unchanged.
    """
    name = _username()
    topics = _asked_topics()
    if topics is None:
        raise RequestError(f"topic is missing: POST {request.path}?topic=room1 subscribes to the chat room1", field="topic")
    return json_answer(Following(name, await service().subscriptions.subscribe(name, topics)))


@subscribing.websocket(_PATH)
@hide  # documented with the list, because a path has one GET
async def subscribe_in_dialogue(username: str) -> None:
    """Subscribe a user to one chat after the other."""
    check_count(websocket.query_string)
    name, asked, subscriptions = _username(), websocket.args, service().subscriptions

    async def subscribe(said: str) -> Following:
        return Following(name, await subscriptions.subscribe(name, [said.strip()]))

    async def opening() -> Following:
        return Following(name, await subscriptions.subscribe(name, _topics_in(asked) or []))

    answer_messages(name, subscribe, opening=opening if asked else None)


@subscribing.post("/subscribing/<string:username>/<rest:chat>")
@tag(["Compatibility"])
@document_response(Following)
@example(_EXAMPLE)
@refuses(400, 403, 409, 413, 503)
async def subscribe_to_chat(username: str, chat: str) -> Response:
    """Subscribe a user to a chat.

    The same as `POST /subscribing/{username}?topic={chat}`, which new clients use. A body is ignored.
    """
    user, _, rest = rest_of_path("/subscribing/").partition(b"/")
    name = parse_username(user)  # without a slash, the one that matched the route was percent-encoded, and is refused
    found = service()
    wanted = found.names.parse(decoded_name(rest, field="chat"), field="chat")
    return json_answer(Following(name, await found.subscriptions.subscribe(name, [wanted])))


@subscribing.delete(_PATH)
@tag(["Subscriptions"])
@add_to_operation(parameters=[_topics("A topic or a chat; may be repeated. Without any: all but the default chats.", required=False)])
@document_response(Following)
@example(_EXAMPLE)
@refuses(400, 403, 409, 413, 503)
async def unsubscribe(username: str) -> Response:
    """Unsubscribe a user from chats, or from all but the default ones.

    The user's open WebSockets receive no more of their messages.
    """
    name = _username()
    return json_answer(Following(name, await service().subscriptions.unsubscribe(name, _asked_topics())))


def _username() -> str:
    return parse_username(rest_of_path("/subscribing/"))


def _asked_topics() -> Sequence[str] | None:
    return _topics_in(request.args)


def _topics_in(args: MultiDict[str, str]) -> Sequence[str] | None:
    """Return the values of `topic`; None if there is none.

    Raises:
        RequestError: any other parameter. Otherwise `DELETE ?topics=room1` would unsubscribe from all chats.
    """
    for name in args:
        if name != "topic":
            raise RequestError(f"there is no parameter {name[:60]!a}; topic is the only one", field=name[:60])
    return args.getlist("topic") or None
