"""Keeps a request on one line of hypercorn's `--access-logfile`, whatever the client puts into it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from hypercorn.logging import AccessLogAtoms

if TYPE_CHECKING:
    from hypercorn.typing import ResponseSummary, WWWScope

# What an address says of a token (auth.query), and whatever looks like one, in any header: {"alg":… is eyJ… in base64url.
_TOKEN = re.compile(r"((?<![^?&])access_token=)[^&#\s]*|eyJ[\w-]*\.[\w-]*\.[\w-]*")


class PlainAtoms(AccessLogAtoms):
    """Hypercorn's log fields, with the path percent-encoded as received, unprintable characters escaped, and tokens left out.

    Hypercorn writes the decoded path: with `GET /%0A127.0.0.1 …` a client could forge a second line.
    """

    def __init__(self, request: WWWScope, response: ResponseSummary | None, request_time: float) -> None:
        raw_path = request.get("raw_path") or request["path"].encode()
        # hypercorn decodes the query as UTF-8, and an error there would end the connection.
        query = request["query_string"].decode(errors="replace").encode()
        super().__init__(cast("WWWScope", {**request, "path": raw_path.decode("latin-1"), "query_string": query}), response, request_time)
        for name, value in self.items():
            if not isinstance(value, str):
                continue
            value = _TOKEN.sub(r"\1***", value)
            if not value.isprintable():
                value = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in value)
            self[name] = value
