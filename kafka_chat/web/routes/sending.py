"""Sending a message to a chat, so that one can try the service without a producer."""

from __future__ import annotations

from typing import Annotated

import msgspec
from quart import Blueprint, Response
from quart_schema import document_request, document_response, tag
from werkzeug.exceptions import Forbidden

from ...chat.topics import check_username
from ...delivery.seams import Published
from ..bodies import json_answer, read_body
from ..openapi import example, refuses
from ..raw_path import name_in_path
from ..seams import service

sending = Blueprint("sending", __name__)


class Outgoing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message to send.

    Attributes:
        sender: who writes it; legal as a username.
        text: what is written.
        tag: anything that its readers make something of, or null.
    """

    sender: Annotated[str, msgspec.Meta(examples=["ada"])]
    text: Annotated[str, msgspec.Meta(examples=["hello"])]
    tag: Annotated[str | None, msgspec.Meta(examples=["greeting"])] = None


@sending.post("/send-message/chat/<rest:chat>")
@tag(["Messages"])
@document_request(Outgoing)
@document_response(Published)
@example({"topic": "kafka.chat.room1", "partition": 0, "offset": 41})
@refuses(400, 403, 404, 413, 415, 503)
async def send_message(chat: str) -> Response:
    """Send a message to a chat.

    Answered once Kafka has it: on 200 it is in the log, at this offset of this partition of the topic. A sender's
    messages to a chat keep their order. On by default only with the embedded broker (`sending.enabled`), which also
    makes the topic; elsewhere a chat without a topic is 404.
    """
    found = service()
    if not found.settings.sending_enabled:
        raise Forbidden("sending is off here; the setting sending.enabled: true switches it on")
    name = found.names.parse(name_in_path("/send-message/chat/", field="chat"), field="chat")
    message = await read_body(Outgoing)
    sender = check_username(message.sender, field="sender")
    return json_answer(await found.sending.send(name, sender, message.text, message.tag))
