"""What hypercorn's own `--access-logfile` writes of a request: in one line, whatever the client has put into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hypercorn.logging import AccessLogAtoms

if TYPE_CHECKING:
    from hypercorn.typing import ResponseSummary, WWWScope


class PlainAtoms(AccessLogAtoms):
    """Hypercorn's, with the path as it came, percent-encoded, and with everything escaped that is not printable.

    Hypercorn writes the decoded path: `GET /%0A127.0.0.1 …` would be two lines, of which the client writes the second.
    """

    def __init__(self, request: WWWScope, response: ResponseSummary | None, request_time: float) -> None:
        raw_path = request.get("raw_path") or request["path"].encode()
        # Bytes that are no UTF-8 in a query end the connection otherwise, where hypercorn decodes them.
        query = request["query_string"].decode(errors="replace").encode()
        super().__init__(cast("WWWScope", {**request, "path": raw_path.decode("latin-1"), "query_string": query}), response, request_time)
        for name, value in self.items():
            if isinstance(value, str) and not value.isprintable():
                self[name] = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in value)
