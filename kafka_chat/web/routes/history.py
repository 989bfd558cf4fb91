"""History pages over HTTP."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

import msgspec
from quart import Blueprint, Response, current_app, request
from quart_schema import tag

from ...access.decision import Need
from ...chat.resume_cursor import joined, parse
from ...delivery.history.query import PageQuery
from ...errors import RequestError
from ..documents.openapi import add_to_operation, refuses
from ..documents.parameter_docs import CURSOR, FROM, REWIND_BY, SENDERS, TAGS, UNTIL, parameter
from ..ports import HELD, service
from ..requests.needs import Named, identity, needs
from ..requests.parameters import REWIND, Query, check_times, start_of, until_ms
from ..requests.preferences import preference
from ..requests.raw_path import name_in_path
from ..server.connection import awaiting_news
from ..server.policy import CONNECTION

if TYPE_CHECKING:
    from ...delivery.history.query import Page
    from ...settings.model import HistorySettings

history = Blueprint("history", __name__)

_PATH = "/history/"
LIMIT = 100
MOST = 1000
WAIT_SECONDS = 55  # by default nginx, HAProxy and load balancers answer 504 for us after 60
LINK_BYTES = 2048  # nginx answers 502 if the headers of an answer have more than 4 KiB in total

_SECONDS = re.compile(r"[0-9]{1,9}")

_EXAMPLE = {
    "messages": [
        {
            "sender": "bob",
            "text": "hello",
            "tag": None,
            "chat": "room1",
            "meta": {"id": "AjXk…", "partition": 0, "offset": 41, "time": 1764064800123, "key": "bob", "headers": []},
        }
    ],
    "gaps": [],
    "next": "AQAAAAAA",
    "prev": "AQAAAAAB",
    "end": True,
}
_SCHEMA = {
    "type": "object",
    "required": ["messages", "gaps", "next", "prev", "end"],
    "properties": {
        "messages": {"type": "array", "items": {"type": "object"}, "description": "Data frames of kafka-chat.v1, oldest first."},
        "gaps": {"type": "array", "items": {"type": "object"}, "description": "Records that were due and are gone, as in `gap` frames."},
        "next": {"type": "string", "description": "The cursor that continues after this page, here and on every stream."},
        "prev": {"type": "string", "description": "The cursor for what is before this page, with `direction=backward`."},
        "end": {"type": "boolean", "description": "Everything that was there in this direction at the time of the request has been read."},
    },
}


@history.get(_PATH + "<rest:chat>")
@tag(["Messages"])
@add_to_operation(
    parameters=[
        CURSOR,
        FROM,
        REWIND_BY,
        UNTIL,
        TAGS,
        SENDERS,
        parameter("limit", "How many messages, at most. A page also ends at a mebibyte.", LIMIT, type="integer", minimum=1, maximum=MOST),
        parameter(
            "direction",
            "`forward`: what follows the beginning, by default the earliest message; `backward`: the last ones before it, by default "
            "before the end, still oldest first.",
            "backward",
            enum=["forward", "backward"],
        ),
        {
            "name": "Prefer",
            "in": "header",
            "required": False,
            "description": f"`wait=30` waits up to 30 seconds, at most {WAIT_SECONDS}, for a message where a forward page would be empty.",
            "schema": {"type": "string"},
            "example": "wait=30",
        },
    ],
    responses={
        "200": {
            "description": "A page. A page that stays the same has an `ETag`, and may be cached for as long as `Cache-Control` says.",
            "headers": {
                "Link": {
                    "description": f'`rel="next"` and `rel="prev"`; left out where it would have over {LINK_BYTES} bytes.',
                    "schema": {"type": "string"},
                },
                "ETag": {"description": "Only of a page that stays the same.", "schema": {"type": "string"}},
                "Preference-Applied": {
                    "description": "`wait=…`, if it was asked for: how long it may have waited.",
                    "schema": {"type": "string"},
                },
            },
            "content": {"application/json": {"schema": _SCHEMA, "example": _EXAMPLE}},
        },
        "304": {"description": "The page is the one that `If-None-Match` names."},
    },
)
@refuses(400, 401, 403, 404, 503)
@needs(Need.READ, lambda: Named(chats=(_chat(),)))
async def read_history(chat: str) -> Response:
    """Read a page of a chat's messages, over all its partitions in the order of time.

    Within a partition messages are ordered by offset, whatever their times. `next` continues after this page, and is a cursor
    for WebSockets and event streams, too: they deliver what follows the last page, without a gap and without duplicates.
    """
    found = service()
    query = Query(request.query_string)
    now_ms = time.time_ns() // 1_000_000
    asked = _asked(_chat(), query, now_ms)
    check_times(asked.start, embedded=bool(found.settings.kafka.embedded))
    scope = cast("dict[str, Any]", request.scope)
    scope[HELD] = found.admit("")
    page = await found.history.page(asked, waiting=partial(awaiting_news, scope.get("state", {}).get(CONNECTION)))
    body = _body(page)
    headers = {"Cache-Control": "no-store" if found.identify is None else "private, no-cache"}
    if len(links := _links(asked, page)) <= LINK_BYTES:
        headers["Link"] = links
    if asked.wait_seconds:
        headers["Preference-Applied"] = f"wait={asked.wait_seconds:.0f}"
    if page.closed:
        # Where tokens are asked for, each use of a page asks again whether it may be read.
        asks = found.identify is not None
        headers["Cache-Control"] = "private, no-cache" if asks else _kept(found.settings.history, compacted=page.compacted)
        headers["ETag"] = f'"{sha256(body).hexdigest()[:32]}"'
        if request.if_none_match.contains_weak(headers["ETag"].strip('"')):
            return current_app.response_class(b"", 304, headers)
    return current_app.response_class(body, 200, headers, content_type="application/json")


def _chat() -> str:
    return service().names.parse(name_in_path(_PATH, field="chat"), field="chat")


def _asked(chat: str, query: Query, now_ms: int) -> PageQuery:
    cursors = query.all("cursor")
    return PageQuery(
        chat=chat,
        cursor=parse(joined(cursors)) if cursors else None,
        start=start_of(query, now_ms),
        rewind=query.whole("rewind", most=REWIND) or 0,
        until_ms=until_ms(query, now_ms),
        tags=query.filter("tag"),
        senders=query.filter("sender"),
        limit=query.whole("limit", most=MOST) or LIMIT,
        backward=_is_backward(query),
        wait_seconds=_wait_seconds(now_ms),
    )


def _is_backward(query: Query) -> bool:
    direction = query.one("direction")
    if direction not in (None, "forward", "backward"):
        raise RequestError(f"direction is {direction[:60]!r}; forward or backward is needed", field="direction")
    return direction == "backward"


def _wait_seconds(now_ms: int) -> float:
    """Return how long the client prefers to wait (RFC 7240 section 4.3), but not beyond its token; an unknown preference counts as none."""
    asked = preference(request.headers.getlist("Prefer"), "wait")
    wait = min(int(asked), WAIT_SECONDS) if asked is not None and _SECONDS.fullmatch(asked) else 0
    ends_at = identity().ends_at
    return wait if ends_at is None else max(0, min(wait, int(ends_at - now_ms / 1000)))


def _kept(settings: HistorySettings, *, compacted: bool) -> str:
    """Return the `Cache-Control` of a page that stays the same for as long as its messages exist."""
    if settings.cache == "none":
        return "no-store"
    if compacted:
        return f"{settings.cache}, no-cache"  # compaction may remove a message; the ETag shows it
    return f"{settings.cache}, max-age={settings.cache_seconds}, immutable"


def _body(page: Page) -> bytes:
    rest = msgspec.json.encode({"gaps": page.gaps, "next": page.next, "prev": page.prev, "end": page.end})
    return b'{"messages":[%b],%b' % (b",".join(page.messages), rest[1:])


def _links(asked: PageQuery, page: Page) -> str:
    """Return the `Link` header to the neighbouring pages, relative, so that it is right behind any proxy."""
    kept = [] if asked.until_ms is None else [("until", datetime.fromtimestamp(asked.until_ms / 1000, UTC).isoformat())]
    kept.append(("limit", str(asked.limit)))
    kept += [("tag", one) for one in sorted(asked.tags or ())] + [("sender", one) for one in sorted(asked.senders or ())]
    after = urlencode([("cursor", page.next), *kept])
    before = urlencode([("cursor", page.prev), ("direction", "backward"), *kept])
    return f'<?{after}>; rel="next", <?{before}>; rel="prev"'
