"""The chats a user follows: list, subscribe, unsubscribe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from quart import Blueprint, Response, has_websocket_context, request, websocket
from quart_schema import document_response, hide, tag
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import MethodNotAllowed

from ...access.decision import Need
from ...access.rights import Action
from ...chat.names import parse_username
from ...delivery.writes.subscriptions import FollowedChat  # noqa: TC001 - msgspec reads the annotation
from ...errors import RequestError
from ..documents.openapi import add_to_operation, example, refuses, speaks
from ..ports import service
from ..requests.bodies import json_answer
from ..requests.needs import Named, identity, needs
from ..requests.parameters import check_count
from ..requests.raw_path import decoded_name, rest_of_path
from ..requests.token import PARAMETER
from .dialogue import Messages, answer_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...access.identity import Identity

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
@refuses(400, 401, 403, 405, 503)
@needs(Need.USER, lambda: Named(user=_username()))
async def following(username: str) -> Response:
    """List the chats that a user follows, or subscribe to one after the other (WebSocket).

    An unknown user follows the default chats. `topic` is refused here, so that nobody takes a list for a subscription;
    the WebSocket accepts it.
    """
    name = _username()
    if _asked_topics() is not None:
        raise MethodNotAllowed(["POST", "DELETE"], f"{request.method} lists; POST with ?topic= subscribes, DELETE unsubscribes")
    return json_answer(Following(name, await service().subscriptions.following(name, may_read=_may_read(identity()))))


@subscribing.post(_PATH)
@tag(["Subscriptions"])
@add_to_operation(parameters=[_topics("A topic or a chat; may be repeated.", required=True)])
@document_response(Following)
@example(_EXAMPLE)
@refuses(400, 401, 403, 409, 413, 503)
@needs(Need.FOLLOW, lambda: _names(_args()))
async def subscribe(username: str) -> Response:
    """Subscribe a user to chats, to all of them or to none.

    The user's open WebSockets follow them at once, on every instance. A chat need not exist: it is followed from its first
    message on. Chats that are already followed stay unchanged.
    """
    name = _username()
    topics = _asked_topics()
    if topics is None:
        raise RequestError(f"topic is missing: POST {request.path}?topic=room1 subscribes to the chat room1", field="topic")
    return json_answer(Following(name, await service().subscriptions.subscribe(name, topics, may_read=_may_read(identity()))))


@subscribing.websocket(_PATH)
@hide  # documented with the list, because a path has one GET
@needs(Need.FOLLOW, lambda: _names(_args()))
async def subscribe_in_dialogue(username: str) -> None:
    """Subscribe a user to one chat after the other."""
    check_count(websocket.query_string)
    name, asked, found, by = _username(), _args(), service(), identity()

    async def follow(topics: Sequence[str]) -> Following:
        return Following(name, await found.subscriptions.subscribe(name, topics, may_read=_may_read(by)))

    async def opening() -> Following:
        return await follow(_topics_in(asked) or [])

    messages = Messages(
        need=Need.FOLLOW,
        parse=str.strip,
        names=lambda topic: Named(user=name, chats=(found.names.parse(topic, field="topic"),)),
        answer=lambda topic: follow([topic]),
    )
    answer_messages(name, messages, opening=opening if asked else None)


@subscribing.post("/subscribing/<string:username>/<rest:chat>")
@tag(["Compatibility"])
@document_response(Following)
@example(_EXAMPLE)
@refuses(400, 401, 403, 409, 413, 503)
@needs(Need.FOLLOW, lambda: Named(user=_user_and_chat()[0], chats=_user_and_chat()[1:]))
async def subscribe_to_chat(username: str, chat: str) -> Response:
    """Subscribe a user to a chat.

    The same as `POST /subscribing/{username}?topic={chat}`, which new clients use. A body is ignored.
    """
    name, wanted = _user_and_chat()
    return json_answer(Following(name, await service().subscriptions.subscribe(name, [wanted], may_read=_may_read(identity()))))


@subscribing.delete(_PATH)
@tag(["Subscriptions"])
@add_to_operation(parameters=[_topics("A topic or a chat; may be repeated. Without any: all but the default chats.", required=False)])
@document_response(Following)
@example(_EXAMPLE)
@refuses(400, 401, 403, 409, 413, 503)
@needs(Need.USER, lambda: Named(user=_username()))
async def unsubscribe(username: str) -> Response:
    """Unsubscribe a user from chats, or from all but the default ones.

    The user's open WebSockets receive no more of their messages.
    """
    name = _username()
    return json_answer(Following(name, await service().subscriptions.unsubscribe(name, _asked_topics(), may_read=_may_read(identity()))))


def _user_and_chat() -> tuple[str, str]:
    user, _, rest = rest_of_path("/subscribing/").partition(b"/")
    name = parse_username(user)  # where no slash is left, the one that led here was percent-encoded, and is refused
    return name, service().names.parse(decoded_name(rest, field="chat"), field="chat")


def _names(args: MultiDict[str, str]) -> Named:
    topics = _topics_in(args) or ()
    return Named(user=_username(), chats=[service().names.parse(topic, field="topic") for topic in topics])


def _may_read(by: Identity) -> Callable[[str], bool]:
    return lambda chat: by.may(Action.READ, chat)


def _username() -> str:
    return parse_username(rest_of_path("/subscribing/"))


def _asked_topics() -> Sequence[str] | None:
    return _topics_in(_args())


def _args() -> MultiDict[str, str]:
    """Return the parameters of the current address, but for a token (`auth.query`)."""
    args = websocket.args if has_websocket_context() else request.args
    if PARAMETER not in args or not service().settings.auth.query:
        return args
    return MultiDict((name, value) for name, value in args.items(multi=True) if name != PARAMETER)


def _topics_in(args: MultiDict[str, str]) -> Sequence[str] | None:
    """Return the values of `topic`; None if there is none.

    Raises:
        RequestError: any other parameter. Otherwise `DELETE ?topics=room1` would unsubscribe from all chats.
    """
    for name in args:
        if name != "topic":
            raise RequestError(f"there is no parameter {name[:60]!a}; topic is the only one", field=name[:60])
    return args.getlist("topic") or None
