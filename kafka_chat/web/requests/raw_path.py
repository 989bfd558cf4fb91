"""Reads the name at the end of a raw path.

Quart routes on the decoded path, in which `%2F` is a normal slash and bytes that are not UTF-8 are lost. So a route with a
name ends with `<rest:…>`, which matches anything, and reads the name with these functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from quart import has_websocket_context, request, websocket
from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter

from ...errors import RequestError

if TYPE_CHECKING:
    from hypercorn.typing import HTTPScope, WebsocketScope


class RestConverter(BaseConverter):
    """`<rest:name>`: the rest of the path, which may be empty or contain slashes and newlines."""

    part_isolating = False
    weight = 200  # tried after routes that match more of the path
    regex = r"[\s\S]*"


def rest_of_path(before: str) -> bytes:
    """Return what follows `before` in the path of the current request, still percent-encoded.

    Args:
        before: the decoded path up to there, for example `/subscribing/`.

    Raises:
        NotFound: a slash in `before` was percent-encoded, so it is a different path.
    """
    scope = websocket.scope if has_websocket_context() else request.scope
    raw = raw_path(scope)
    before = scope.get("root_path", "") + before
    *pieces, rest = raw.split(b"/", before.count("/"))
    if unquote_to_bytes(b"/".join([*pieces, b""])) != before.encode():
        raise NotFound
    return rest


def raw_path(scope: HTTPScope | WebsocketScope) -> bytes:
    """Return the path of a request, percent-encoded, without the host before it in a request to a proxy."""
    raw = scope["raw_path"]
    return raw if raw.startswith(b"/") else b"/" + raw.partition(b"://")[2].partition(b"/")[2]


def hosts_in_target(scope: HTTPScope | WebsocketScope) -> list[str]:
    """Return the host and port before the path in a request's target; empty if the target begins with the path."""
    raw = scope["raw_path"]
    if raw.startswith(b"/") or b"://" not in raw:
        return []
    return [raw.partition(b"://")[2].partition(b"/")[0].rpartition(b"@")[2].decode("latin-1")]


def name_in_path(before: str, *, field: str) -> str:
    """Return what follows `before` in the path of the current request, decoded.

    Raises:
        NotFound: a slash in `before` was percent-encoded.
        RequestError: it is not UTF-8.
    """
    return decoded_name(rest_of_path(before), field=field)


def decoded_name(raw: bytes, *, field: str) -> str:
    """Decode a percent-encoded name; raise `RequestError` for `field` if it is not UTF-8."""
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"{field} is not UTF-8; percent-encode its UTF-8 bytes", field=field) from error
