"""The stream of server-sent events that brings a user's messages."""

from __future__ import annotations

import time
from typing import Any, cast

from quart import Blueprint, request
from quart_schema import tag

from ...chat.names import parse_username
from ...delivery.records.formats import Format
from ..documents.openapi import add_to_operation, refuses
from ..documents.parameter_docs import CHATS, CURSOR, FROM, REWIND_BY, SENDERS, TAGS, UNTIL
from ..ports import ADMISSION, service
from ..requests.parameters import check_times, parse_options
from ..requests.raw_path import rest_of_path
from ..streams.event_stream import EventStream

events = Blueprint("events", __name__)

_PATH = "/receive-message/client/"

_EXAMPLE = """\
retry: 2711

id: AQAAAAAA
event: hello
data: {"meta":{"type":"hello","session":"5f1c…","user":"ada","chats":["global"],"resume":"none","cursor":"AQAAAAAA","limits":{…}}}

id: AQAAAAAA
event: live
data: {"meta":{"type":"live","cursor":"AQAAAAAA"}}

id: AQAAAAAA.AjXk…
data: {"sender":"bob","text":"hello","tag":null,"chat":"global","meta":{"id":"AjXk…","partition":0,"offset":41,…}}

"""
_LAST_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "Begin after this event: its `id`, which is a cursor. It wins over `cursor`. An `EventSource` sends it by itself.",
    "schema": {"type": "string"},
    "example": "AQAAAAAA",
}


@events.get(_PATH + "<string:username>/events")
@tag(["Messages"])
@add_to_operation(
    parameters=[CURSOR, FROM, REWIND_BY, UNTIL, CHATS, TAGS, SENDERS, _LAST_ID],
    responses={
        "200": {
            "description": "The stream; it ends when the service restarts, and where `until` is reached.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
        },
        "403": {
            "description": "A page of this origin may not use the service (`access.origins`).",
            "content": {
                "application/json": {
                    "example": {"error": "pages of the origin 'https://x.example' may not use this service (access.origins)", "field": None}
                }
            },
        },
    },
)
@refuses(400, 403, 503)
async def receive_events(username: str) -> EventStream:
    """Receive the messages of all chats that a user follows, as server-sent events.

    The same messages as on a WebSocket. The `id` of an event is a cursor: everything up to this message. An `EventSource` that
    is cut off comes back with it by itself, and gets exactly what it missed, in order, each once:

    ```js
    const source = new EventSource("/receive-message/client/ada/events?rewind=50");
    source.onmessage = (event) => console.log(JSON.parse(event.data));
    source.addEventListener("gap", (event) => console.log("lost for good:", JSON.parse(event.data).meta));
    source.addEventListener("end", () => source.close()); // with `until`
    ```

    Messages are events without a name. What else there is to say (`hello`, `live`, `gap`, `subscribed`, `unsubscribed`,
    `reconnect`, `end`) is an event of that name. After 20 seconds of silence a comment comes.
    """
    user, _, _ = rest_of_path(_PATH).partition(b"/")
    name = parse_username(user)  # where no slash is left, the one that led here was percent-encoded, and is refused
    options = parse_options(
        request.query_string,
        format=Format.EVENTS,
        names=service().names,
        now_ms=time.time_ns() // 1_000_000,
        last_had=request.headers.get("Last-Event-ID") or None,
    )
    check_times(options.start, embedded=bool(service().settings.kafka.embedded))
    if request.method != "HEAD":
        cast("dict[str, Any]", request.scope)[ADMISSION] = service().admit(name, options)
    return EventStream()
