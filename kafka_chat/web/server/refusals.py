"""Error answers of the server itself, to input that never reaches the app."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error answer, after which the connection ends. It has no CORS headers, because the origin is not known yet.

    Attributes:
        status: the HTTP status.
        sentence: what is wrong, and what is allowed.
        headers: further headers.
    """

    status: int
    sentence: str
    headers: tuple[Header, ...] = ()

    def body(self) -> bytes:
        """Return the JSON body, which has the same shape for all errors."""
        return msgspec.json.encode({"error": self.sentence, "field": None})

    def all_headers(self) -> list[Header]:
        """Return all headers, including those of the body."""
        length = b"%d" % len(self.body())
        return [(b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close"), *self.headers]
