"""Finds the token in a request; docs/access.md, "Where a token is"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart import Websocket, has_websocket_context, request, websocket

from ...delivery.session.notices import PLAIN_SUBPROTOCOL, SUBPROTOCOL
from ...errors import RequestError
from .parameters import Query

if TYPE_CHECKING:
    from collections.abc import Collection

    from quart import Request

    from ...settings.model import AuthSettings

BEARER = "bearer."  # the prefix of a token in a subprotocol
PARAMETER = "access_token"  # RFC 6750 section 2.3


class TokenFinder:
    """Finds it in the header, in a subprotocol, in the cookie, or in the query.

    Args:
        auth: says which of these are allowed.
        origins: the pages that may use the service.
    """

    def __init__(self, auth: AuthSettings, origins: Collection[str]) -> None:
        self._cookie = auth.cookie
        self._query = auth.query
        self._origins = frozenset(origins)

    def find(self) -> bytes | None:
        """Return the token of the current request or handshake; None without one.

        Raises:
            RequestError: it has several, or one in a subprotocol without another subprotocol.
        """
        asked = websocket if has_websocket_context() else request
        shown = {*self._in_headers(asked), *self._in_subprotocols(asked), *self._in_address(asked)}
        if len(shown) > 1:
            raise RequestError("the request shows more than one token; show one")
        if shown:
            return shown.pop().encode("utf-8", "replace")
        cookie = self._in_cookie(asked)
        return None if cookie is None else cookie.encode("utf-8", "replace")

    def _in_headers(self, asked: Request | Websocket) -> list[str]:
        values = (value.strip().partition(" ") for value in asked.headers.getlist("Authorization"))
        return [token.strip() for scheme, _, token in values if scheme.lower() == "bearer"]  # others are for a proxy in front

    def _in_subprotocols(self, asked: Request | Websocket) -> list[str]:
        if not isinstance(asked, Websocket):
            return []
        offered = asked.requested_subprotocols
        shown = [name.removeprefix(BEARER) for name in offered if name.startswith(BEARER)]
        if len(shown) > 1:
            raise RequestError("the subprotocol bearer. is offered more than once", field="Sec-WebSocket-Protocol")
        if shown and SUBPROTOCOL not in offered and PLAIN_SUBPROTOCOL not in offered:
            beside = f"{SUBPROTOCOL} or {PLAIN_SUBPROTOCOL}"
            raise RequestError(f"the subprotocol bearer. is offered alone; {beside} is needed beside it", field="Sec-WebSocket-Protocol")
        return shown

    def _in_address(self, asked: Request | Websocket) -> list[str]:
        return Query(asked.query_string).all(PARAMETER) if self._query else []

    def _in_cookie(self, asked: Request | Websocket) -> str | None:
        """Return the cookie's token, unless a page of another origin may have made the browser send it."""
        values = set() if self._cookie is None else set(asked.cookies.getlist(self._cookie))
        if not values:
            return None
        origins = asked.headers.getlist("Origin")
        if origins:
            trusted = len(origins) == 1 and origins[0] in self._origins
        else:  # a browser marks requests of the same origin; a request without marks is not from a browser
            trusted = all(site.strip().lower() == "same-origin" for site in asked.headers.getlist("Sec-Fetch-Site"))
        if not trusted:
            return None
        if len(values) > 1:  # a neighbouring domain may have set another one, and it is unknown which is meant
            raise RequestError(f"the cookie {self._cookie} is there more than once")
        return values.pop()
