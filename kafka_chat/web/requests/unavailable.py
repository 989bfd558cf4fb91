"""Asks an `EventSource` to retry, since it gives up for good at any status other than 200."""

from __future__ import annotations

from random import randint
from typing import TYPE_CHECKING

from quart import current_app, request

if TYPE_CHECKING:
    from quart import Response

CONTENT_TYPE = "text/event-stream; charset=utf-8"  # without the charset some clients read Latin-1
HEADERS = {
    # Not to be stored, compressed, or buffered by nginx.
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}
PASSING = (429, 503)  # temporary statuses
RETRY_MS = (5_000, 30_000)  # random per client, so that they do not all return in the same instant


async def as_event(refusal: Response) -> Response:
    """Return a temporary refusal as a stream of one event, if the client accepts that content type; otherwise unchanged.

    Args:
        refusal: the answer to a request for a stream, or any other answer to it.
    """
    if refusal.status_code not in PASSING or request.method == "HEAD" or not _names_events():
        return refusal
    body = b"retry: %d\nevent: unavailable\ndata: %b\n\n" % (randint(*RETRY_MS), await refusal.get_data(as_text=False))
    return current_app.response_class(body, 200, HEADERS, content_type=CONTENT_TYPE)


def _names_events() -> bool:
    """Whether `Accept` names `text/event-stream`; clients that understand statuses send `*/*`."""
    ranges = (piece.split(";") for line in request.headers.getlist("Accept") for piece in line.split(","))
    return any(kind.strip().lower() == "text/event-stream" and not _is_refused(parameters) for kind, *parameters in ranges)


def _is_refused(parameters: list[str]) -> bool:
    """Whether a media range has the weight 0: RFC 9110 section 12.4.2."""
    return any(parameter.strip().lower().rstrip("0").rstrip(".") in ("q=", "q=0") for parameter in parameters)
