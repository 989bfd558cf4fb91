"""The address of a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypercorn.typing import HTTPScope, WebsocketScope


def peer_of(scope: HTTPScope | WebsocketScope) -> str:
    """Return the client's address, for log lines."""
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else "local"
