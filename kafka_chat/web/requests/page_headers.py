"""The headers that keep a browser from making more of an answer than it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quart.typing import ResponseTypes

Header = tuple[bytes, bytes]

# For what is no page of ours: nothing is loaded or run in its name, and no page shows it in a frame.
STRICT_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

_HEADERS = {
    b"content-security-policy": STRICT_POLICY.encode(),
    b"x-content-type-options": b"nosniff",  # nor is it taken for a script or a page where it is called something else
    b"referrer-policy": b"no-referrer",  # our addresses have usernames in them
}


def lacking(headers: Iterable[Header]) -> list[Header]:
    """Return those of the headers that an answer does not have yet; a page may have a policy that suits it."""
    present = {name.lower() for name, _ in headers}
    return [(name, value) for name, value in _HEADERS.items() if name not in present]


async def complete_refusal(response: ResponseTypes | None) -> ResponseTypes | None:
    """Add the headers to what refuses a handshake; where it is not refused there is no response."""
    if response is not None:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name.decode(), value.decode())
    return response
