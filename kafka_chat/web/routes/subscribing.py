"""Which chats a user follows: listed, added to, taken from."""

from __future__ import annotations

from typing import Any

import msgspec
from quart import Blueprint, Response, request
from quart_schema import document_response, tag
from werkzeug.exceptions import MethodNotAllowed

from ...chat.topics import parse_username
from ...delivery.subscriptions import FollowedChat  # noqa: TC001 - msgspec reads the annotation
from ...errors import RequestError
from ..bodies import json_answer
from ..openapi import add_to_operation, example, refuses
from ..raw_path import rest_of_path
from ..seams import service

subscribing = Blueprint("subscribing", __name__)

_PATH = "/subscribing/<rest:username>"


class Following(msgspec.Struct, frozen=True):
    """All that the user follows now.

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
@refuses(400, 405, 503)
async def following(username: str) -> Response:
    """List the chats that a user follows.

    A user that nobody has heard of follows the default chats. `topic` is not possible here, so that nobody takes a
    list for a subscription.
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
@refuses(400, 409, 413, 503)
async def subscribe(username: str) -> Response:
    """Subscribe a user to chats, to all of them or to none.

    The user's open WebSockets follow at once, on every instance. A chat need not exist: it is followed from its first
    message on. What is followed already stays as it is.
    """
    name = _username()
    topics = _asked_topics()
    if topics is None:
        raise RequestError(f"topic is missing: POST {request.path}?topic=room1 subscribes to the chat room1", field="topic")
    return json_answer(Following(name, await service().subscriptions.subscribe(name, topics)))


@subscribing.delete(_PATH)
@tag(["Subscriptions"])
@add_to_operation(parameters=[_topics("A topic or a chat; may be repeated. Without any: all but the default chats.", required=False)])
@document_response(Following)
@example(_EXAMPLE)
@refuses(400, 409, 413, 503)
async def unsubscribe(username: str) -> Response:
    """Unsubscribe a user from chats, or from all but the default ones.

    The user's open WebSockets get nothing more of them.
    """
    name = _username()
    return json_answer(Following(name, await service().subscriptions.unsubscribe(name, _asked_topics())))


def _username() -> str:
    return parse_username(rest_of_path("/subscribing/"))


def _asked_topics() -> list[str] | None:
    """Return the values of `topic`; None where there is none.

    Raises:
        RequestError: any other parameter. `DELETE ?topics=room1` would leave all chats otherwise.
    """
    for name in request.args:
        if name != "topic":
            raise RequestError(f"there is no parameter {name[:60]!a}; topic is the only one", field=name[:60])
    return request.args.getlist("topic") or None
