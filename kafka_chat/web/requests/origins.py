"""Which web pages may use the service: CORS over HTTP, the `Origin` of a WebSocket handshake.

quart-cors is not what does it: docs/decisions/0004-cors-is-answered-in-front-of-quart.md says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart import websocket

from ...errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hypercorn.typing import ASGISendCallable, ASGISendEvent, HTTPScope

PREFLIGHT_SECONDS = 7200  # for a browser to remember a preflight's answer; more than this Chromium does not

Header = tuple[bytes, bytes]


class OriginRefused(RequestError):
    """403: a page of this origin may not use the service."""

    status = 403


class Origins:
    """The origins that are allowed; without credentials, for the service knows none.

    Args:
        allowed: as browsers write them, or `*` for any.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._any = "*" in allowed
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def sharing(self, scope: HTTPScope, send: ASGISendCallable) -> ASGISendCallable:
        """Return `send` for the answer to a request, to which it adds the headers of CORS, whatever the status.

        A browser's preflight is an OPTIONS, which Quart answers with `Allow`.
        """
        origins = _values(scope["headers"], b"origin")
        preflight = scope["method"] == "OPTIONS" and bool(_values(scope["headers"], b"access-control-request-method"))

        async def send_with_headers(event: ASGISendEvent) -> None:
            if event["type"] == "http.response.start":
                event["headers"] = [*event["headers"], *self._headers(origins, event["headers"], preflight=preflight)]
            await send(event)

        return send_with_headers

    async def check_handshake(self) -> None:
        """Refuse the current WebSocket handshake if it comes from a page that may not use the service.

        Who names no origin is no browser.

        Raises:
            OriginRefused: it does.
        """
        self.check(websocket.headers.getlist("Origin"))

    def check(self, origins: Iterable[str]) -> None:
        """Refuse what comes from a page that may not use the service; raise `OriginRefused`.

        Args:
            origins: the values of `Origin`.
        """
        for origin in origins:
            if not self._any and origin.encode("latin-1", "replace") not in self._allowed:
                raise OriginRefused(f"pages of the origin {origin[:100]!a} may not use this service (access.origins)")

    def _headers(self, origins: Sequence[bytes], answered: Iterable[Header], *, preflight: bool) -> list[Header]:
        if self._any:
            headers = [(b"access-control-allow-origin", b"*")]
        else:
            headers = [(b"vary", b"Origin")]
            if len(origins) != 1 or origins[0] not in self._allowed:
                return headers
            headers.append((b"access-control-allow-origin", origins[0]))
        if preflight:
            headers += [(b"access-control-allow-methods", allow) for allow in _values(answered, b"allow")]
            headers.append((b"access-control-allow-headers", b"*, Authorization"))  # which `*` does not mean
            headers.append((b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS))
        else:
            headers.append((b"access-control-expose-headers", b"Allow, ETag, Link, Preference-Applied, Retry-After"))
        return headers


def _values(headers: Iterable[Header], name: bytes) -> list[bytes]:
    return [value for found, value in headers if found.lower() == name]
