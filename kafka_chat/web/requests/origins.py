"""Decides which web pages may use the service: CORS over HTTP, and the origins of requests and handshakes.

docs/decisions/0004-cors-is-answered-in-front-of-quart.md says why not with quart-cors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart import request, websocket

from ...errors import RequestError
from .page_headers import Header, lacking

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from hypercorn.typing import ASGISendCallable, ASGISendEvent, HTTPScope
    from werkzeug.datastructures import Headers

PREFLIGHT_SECONDS = 7200  # how long a browser may remember a preflight's answer; Chromium allows no more

_SENT_BY_PAGES = b"Accept, Authorization, Content-Type, If-None-Match, Last-Event-ID, Prefer"
_OWN = ("same-origin", "none")  # values of `Sec-Fetch-Site`: our own page, or the user


class OriginRefused(RequestError):
    """403: a page of this origin may not use the service."""

    status = 403


class Origins:
    """The origins that are allowed.

    Args:
        allowed: origins in the form that browsers send, or `*` for any.
        reading: the endpoints whose GET changes nothing and ends by itself.
        credentials: whether a cookie may have a token (`auth.cookie`), which pages of the listed origins may send then.
    """

    def __init__(self, allowed: Sequence[str], *, reading: Collection[str] = (), credentials: bool = False) -> None:
        self._reading = frozenset(reading)
        self._any = "*" in allowed
        self._credentials = credentials and not self._any
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def sharing(self, scope: HTTPScope, send: ASGISendCallable) -> ASGISendCallable:
        """Return a `send` that adds the CORS headers and those of every answer, whatever the status.

        A browser's preflight is an OPTIONS request, which Quart answers with `Allow`.
        """
        origins = _values(scope["headers"], b"origin")
        preflight = scope["method"] == "OPTIONS" and bool(_values(scope["headers"], b"access-control-request-method"))

        async def send_with_headers(event: ASGISendEvent) -> None:
            if event["type"] == "http.response.start":
                headers = list(event["headers"])
                event["headers"] = [*headers, *lacking(headers), *self._headers(origins, headers, preflight=preflight)]
            await send(event)

        return send_with_headers

    async def check_handshake(self) -> None:
        """Raise `OriginRefused` if the current WebSocket handshake comes from a page that may not use the service."""
        self.check(websocket.headers)

    async def check_request(self) -> None:
        """Raise `OriginRefused` if the current request comes from a page that may not use the service.

        Requests that only read are not refused: without CORS headers the page cannot read the answer. A path without a route and
        a preflight are answered as usual.
        """
        rule = request.url_rule
        if rule is None or request.method == "OPTIONS":
            return
        if request.method in ("GET", "HEAD") and rule.endpoint in self._reading:
            return
        self.check(request.headers)

    def check(self, headers: Headers) -> None:
        """Raise `OriginRefused` for a page that may not use the service.

        A browser says where a request comes from: with `Origin` on every request that may change something, and with
        `Sec-Fetch-Site`. A request with neither header does not come from a browser.
        """
        if self._any:
            return
        origins = headers.getlist("Origin")
        for origin in origins:
            if origin.encode("latin-1", "replace") not in self._allowed:
                raise OriginRefused(f"pages of the origin {origin[:100]!a} may not use this service (access.origins)")
        for site in () if origins else headers.getlist("Sec-Fetch-Site"):
            if site.strip().lower() not in _OWN:
                raise OriginRefused(f"pages of another origin ({site[:100]!a}) may not use this service (access.origins)")

    def _headers(self, origins: Sequence[bytes], answered: Iterable[Header], *, preflight: bool) -> list[Header]:
        if self._any:
            headers = [(b"access-control-allow-origin", b"*")]
        else:
            headers = [(b"vary", b"Origin")]
            if len(origins) != 1 or origins[0] not in self._allowed:
                return headers
            headers.append((b"access-control-allow-origin", origins[0]))
            if self._credentials:
                headers.append((b"access-control-allow-credentials", b"true"))
        if preflight:
            headers += [(b"access-control-allow-methods", allow) for allow in _values(answered, b"allow")]
            # `*` does not mean Authorization; and with credentials it is no more than a name.
            headers.append((b"access-control-allow-headers", _SENT_BY_PAGES if self._credentials else b"*, Authorization"))
            headers.append((b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS))
        else:
            headers.append((b"access-control-expose-headers", b"Allow, ETag, Link, Preference-Applied, Retry-After"))
        return headers


def _values(headers: Iterable[Header], name: bytes) -> list[bytes]:
    return [value for found, value in headers if found.lower() == name]
