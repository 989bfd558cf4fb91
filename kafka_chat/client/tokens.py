"""The token that a client shows, and where the next one comes from."""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING

import trio

from .http_api import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    TokenSource = str | Callable[[], str | Awaitable[str]]

NO_TOKEN = 4401  # the close code; 401 is the status
UNAUTHORIZED = 401


class Tokens:
    """Keeps the token of one client.

    Args:
        source: the token, or a function that returns one, and may be asked again; None: there is none.
    """

    def __init__(self, source: TokenSource | None) -> None:
        self._source = source
        self._token = source if isinstance(source, str) else None
        self._refused: str | None = None
        self._asking = trio.Lock()

    async def current(self) -> str | None:
        """Return the token to connect with; ask for one if there is none.

        Raises:
            Refused: it is the one that has just been refused.
        """
        if self._token is None and self._source is not None:
            await self.renew()
        return self._token

    async def renew(self) -> str | None:
        """Ask for the next token, one call at a time; what the function raises is raised.

        Raises:
            Refused: it is the one that has just been refused.
        """
        async with self._asking:
            found = self._source() if callable(self._source) else self._source
            token = await found if isawaitable(found) else found
            if token is not None and token == self._refused:
                raise Refused(
                    f"the token is not valid, and there is no other ({NO_TOKEN})", code=NO_TOKEN, reason="a valid token is needed"
                )
            self._token = token
        return self._token

    def is_over(self, code: int) -> bool:
        """Note that a connection or a request has ended with a code; return whether another token may help."""
        if code not in (NO_TOKEN, UNAUTHORIZED) or self._token is None or not callable(self._source):
            return False
        self._refused, self._token = self._token, None
        return True
