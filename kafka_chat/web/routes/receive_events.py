"""The stream of server-sent events that delivers a user's messages."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
from quart import Blueprint, request
from quart_schema import document_request, tag

from ...access.decision import Need
from ...chat.names import parse_username
from ...delivery.records.formats import Format
from ...delivery.session.event_session import ID_BYTES
from ...delivery.session.long_cursor import parse_in_turns
from ..documents.openapi import add_to_operation, refuses
from ..documents.parameter_docs import CHATS, CURSOR, FROM, REWIND_BY, SENDERS, TAGS, UNTIL
from ..ports import ADMISSION, service
from ..requests.bodies import read_body
from ..requests.needs import Named, identity, needs
from ..requests.parameters import LAST_EVENT_ID, check_times, parse_options
from ..requests.raw_path import rest_of_path
from ..requests.unavailable import as_event
from ..streams.event_stream import EventStream

if TYPE_CHECKING:
    from ...delivery.session.options import SessionOptions

events = Blueprint("events", __name__)
events.after_request(as_event)

_PATH = "/receive-message/client/"

_EXAMPLE = """\
retry: 2711
id: AQAAAAAA
event: hello
data: {"meta":{"type":"hello","session":"5f1c…","user":"ada","chats":["global"],"resume":"none","cursor":"AQAAAAAA",…,"resumable":true}}

id: AQAAAAAA
event: live
data: {"meta":{"type":"live","cursor":"AQAAAAAA"}}

id: AQAAAAAA.AjXk…
data: {"sender":"bob","text":"hello","tag":null,"chat":"global","meta":{"id":"AjXk…","partition":0,"offset":41,…}}

"""
_LAST_ID = {
    "name": LAST_EVENT_ID,
    "in": "header",
    "required": False,
    "description": "Begin after this event: its `id`, which is a cursor. It wins over `cursor`. An `EventSource` sends it by itself.",
    "schema": {"type": "string"},
    "example": "AQAAAAAA",
}


_DESCRIBED = add_to_operation(
    parameters=[CURSOR, FROM, REWIND_BY, UNTIL, CHATS, TAGS, SENDERS, _LAST_ID],
    responses={
        "200": {
            "description": "The stream; it ends when the service restarts, and where `until` is reached. Where the answer would be "
            "503 and `Accept` names `text/event-stream`: one event `unavailable` with that error, and the end.",
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


class Beginning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a stream begins.

    Attributes:
        cursor: begin after it; null or empty: as the address says. A `Last-Event-ID` wins over it.
    """

    cursor: Annotated[str | None, msgspec.Meta(examples=["AQAAAAAA"])] = None


@events.get(_PATH + "<string:username>/events")
@tag(["Messages"])
@_DESCRIBED
@refuses(400, 401, 403, 503)
@needs(Need.READ, lambda: _names())
async def receive_events(username: str) -> EventStream:
    """Receive the messages of all chats that a user follows, as server-sent events.

    The same messages as on a WebSocket. The `id` of an event is a cursor: everything up to this message. An `EventSource` that
    loses its connection reconnects with it by itself, and gets exactly what it missed, in order, each once:

    ```js
    const source = new EventSource("receive-message/client/ada/events?rewind=50");
    source.onmessage = (event) => console.log(JSON.parse(event.data));
    source.addEventListener("gap", (event) => console.log("lost for good:", JSON.parse(event.data).meta));
    source.addEventListener("end", () => source.close()); // with `until`
    ```

    If `hello` says `"resumable":false`, the cursor is too long for an `id` (over 4096 bytes), which is then empty: reconnect by
    `POST`, or by a WebSocket.

    Messages are events without a name. Control frames (`hello`, `live`, `gap`, `skipped`, `subscribed`, `unsubscribed`,
    `reconnect`, `end`) are events of that name. After 20 seconds of silence a comment is sent.
    """
    return await _stream(*_asked())


@events.post(_PATH + "<string:username>/events")
@tag(["Messages"])
@_DESCRIBED
@document_request(Beginning)
@refuses(400, 401, 403, 413, 415, 503)
@needs(Need.READ, lambda: _names())
async def receive_events_after(username: str) -> EventStream:
    """Receive the same stream, from a cursor in the body: of any length, and not visible in logs of addresses.

    A cursor grows with the followed chats. Send one that is too long for an address or a header here, with `fetch`,
    and read its body as a stream. The cursor is that of the last event with one in its `meta`, a dot, and `meta.id` of the last
    message of each partition since then, with dots between them.
    """
    name, options = _asked()
    cursor = (await read_body(Beginning)).cursor
    if cursor and not request.headers.get(LAST_EVENT_ID):
        options = replace(options, cursor=await parse_in_turns(cursor), came_with=cursor if len(cursor) <= ID_BYTES else "")
    return await _stream(name, options)


def _asked() -> tuple[str, SessionOptions]:
    """Return the user whose messages are requested, and the options."""
    user, _, _ = rest_of_path(_PATH).partition(b"/")
    name = parse_username(user)  # without a slash, the one that matched the route was percent-encoded, and is refused
    return name, parse_options(
        request.query_string,
        format=Format.EVENTS,
        names=service().names,
        now_ms=time.time_ns() // 1_000_000,
        last_had=request.headers.get(LAST_EVENT_ID) or None,
    )


def _names() -> Named:
    name, options = _asked()
    return Named(user=name, chats=options.chats)


async def _stream(name: str, options: SessionOptions) -> EventStream:
    check_times(options.start, embedded=bool(service().settings.kafka.embedded))
    if request.method != "HEAD":
        existing = await service().named_chats.existing(name, options.chats)
        cast("dict[str, Any]", request.scope)[ADMISSION] = service().admit(name, options, existing=existing, identity=identity())
    return EventStream()
