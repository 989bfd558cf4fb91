"""Sending messages to a chat, also to try the service without a producer."""

from __future__ import annotations

from typing import Annotated, NoReturn

import msgspec
from quart import Blueprint, Response
from quart_schema import document_request, document_response, hide, tag

from ...access.decision import Need, decide
from ...chat.names import check_username
from ...delivery.ports import Published
from ...errors import SendingOff
from ..documents.openapi import example, refuses, speaks
from ..ports import service
from ..requests.bodies import json_answer, parse_json, read_body
from ..requests.errors import upgrade_required
from ..requests.needs import Named, identity, needs
from ..requests.raw_path import name_in_path
from .dialogue import Messages, answer_messages

sending = Blueprint("sending", __name__)


class Outgoing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message to send.

    Attributes:
        sender: who writes it; a valid username.
        text: what is written.
        tag: any text with a meaning for its readers, or null.
    """

    sender: Annotated[str, msgspec.Meta(examples=["ada"])]
    text: Annotated[str, msgspec.Meta(examples=["hello"])]
    tag: Annotated[str | None, msgspec.Meta(examples=["greeting"])] = None


class EarlierOutgoing(Outgoing, frozen=True, forbid_unknown_fields=False):
    """A message as clients of the earlier system send it by WebSocket: with other keys, which are ignored."""


_PATH = "/send-message/chat/<rest:chat>"

_FRAMES = """\
Connect a WebSocket, and send each message as one text frame of JSON, as `POST /send-message/chat/{chat}` takes it:

```json
{"sender": "ada", "text": "hello", "tag": "greeting"}
```

Other keys, such as `timestamp` and `chat`, which clients of the earlier system send, are ignored here. The path alone names the chat.

Each is answered by one text frame, in order. Once Kafka has the message, the answer says where it is:

```json
{"topic": "kafka.chat.room1", "partition": 0, "offset": 41}
```

If it was not sent, the answer says why, and the WebSocket stays open:

```json
{"error": "text is missing", "field": "text"}
```

A message without an answer when the WebSocket ends may or may not have been sent. In a browser:

```js
const socket = new WebSocket(new URL("send-message/chat/room1", location).href.replace("http", "ws"));
socket.onopen = () => socket.send(JSON.stringify({sender: "ada", text: "hello"}));
socket.onmessage = (event) => console.log(JSON.parse(event.data));
```
"""


@sending.post(_PATH)
@tag(["Messages"])
@document_request(Outgoing)
@document_response(Published)
@example({"topic": "kafka.chat.room1", "partition": 0, "offset": 41})
@refuses(400, 401, 403, 404, 413, 415, 503)
@needs(Need.SEND, lambda: Named(chats=(_named(),)))
async def send_message(chat: str) -> Response:
    """Send a message to a chat.

    The answer comes once Kafka has the message: with 200 it is in the log, at this offset of this partition of the topic. A sender's
    messages to a chat keep their order. On by default only with the embedded broker (`sending.enabled`), which also
    creates the topic; with other brokers a chat without a topic is 404.
    """
    chat, by, message = _chat(), identity(), await read_body(Outgoing)
    sender = _sender(message)
    decide(Need.SEND, by, user=sender, chats=(chat,))
    return json_answer(await service().sending.send(chat, sender, message.text, message.tag, by=by.user))


@sending.websocket(_PATH)
@tag(["Compatibility"])
@speaks(_FRAMES, accepted="The handshake is answered; each message is answered by one.")
@refuses(400, 401, 403, 426, 503)
@needs(Need.SEND, lambda: Named(chats=(_named(),)))
async def send_messages(chat: str) -> None:
    """Send messages to a chat (WebSocket)."""
    chat, kafka, by = _chat(), service().sending, identity()

    async def send(message: Outgoing) -> Published:
        return await kafka.send(chat, _sender(message), message.text, message.tag, by=by.user)

    messages = Messages(
        need=Need.SEND,
        parse=lambda said: parse_json(said.encode("utf-8", "surrogatepass"), EarlierOutgoing, what="the message"),
        names=lambda message: Named(user=_sender(message), chats=(chat,)),
        answer=send,
    )
    answer_messages("", messages)


@sending.get(_PATH)
@hide
@needs(Need.PUBLIC)
async def no_websocket(chat: str) -> NoReturn:
    """Answer a plain request with how to connect a WebSocket."""
    _chat()
    raise upgrade_required()


def _chat() -> str:
    """Return the chat that the path names, if clients may send; raises `SendingOff` otherwise."""
    found = service()
    if not found.settings.sending_enabled:
        raise SendingOff
    return _named()


def _named() -> str:
    return service().names.parse(name_in_path("/send-message/chat/", field="chat"), field="chat")


def _sender(message: Outgoing) -> str:
    return check_username(message.sender, field="sender")
