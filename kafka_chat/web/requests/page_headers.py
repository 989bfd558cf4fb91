"""The headers that keep a browser from treating an answer as a page or a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quart.typing import ResponseTypes

Header = tuple[bytes, bytes]

# For answers that are not our pages: they load and run nothing, and no page shows them in a frame.
STRICT_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

_HEADERS = {
    b"content-security-policy": STRICT_POLICY.encode(),
    b"x-content-type-options": b"nosniff",  # and their type is not guessed
    b"referrer-policy": b"no-referrer",  # our URLs contain usernames
}


def lacking(headers: Iterable[Header]) -> list[Header]:
    """Return the headers that an answer does not have yet; a page may have its own policy."""
    present = {name.lower() for name, _ in headers}
    return [(name, value) for name, value in _HEADERS.items() if name not in present]


async def complete_refusal(response: ResponseTypes | None) -> ResponseTypes | None:
    """Add the headers to the refusal of a handshake; without a refusal there is no response."""
    if response is not None:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name.decode(), value.decode())
    return response
