"""Answers of the server itself, to input that never becomes a request of the app."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error answer, after which the connection ends. It has no CORS headers, for the origin is not known yet.

    Attributes:
        status: of HTTP.
        sentence: what is wrong, and what is allowed.
        headers: further ones.
    """

    status: int
    sentence: str
    headers: tuple[Header, ...] = ()

    def body(self) -> bytes:
        """Return the JSON that all error answers are."""
        return msgspec.json.encode({"error": self.sentence, "field": None})

    def all_headers(self) -> list[Header]:
        """Return the headers that go with the body."""
        length = b"%d" % len(self.body())
        return [(b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close"), *self.headers]
