"""A request whose route sets the limit of its body."""

from __future__ import annotations

import re
from typing import Any

from quart_trio.wrappers import TrioRequest

from ...chat.resume_cursor import TEXT_LENGTH

CURSOR_BODY_BYTES = TEXT_LENGTH + 1024  # the longest cursor, and the JSON around it

_TAKES_CURSOR = re.compile(r"/receive-message/client/[^/]*/events")


class ChatRequest(TrioRequest):
    """Quart's request, with a limit of the body per route.

    Attributes:
        most_body_bytes: the limit of its body; None: Quart's own limit.
    """

    def __init__(self, method: str, scheme: str, path: str, *rest: Any, max_content_length: int | None = None, **named: Any) -> None:  # noqa: ANN401 - as Quart calls it
        if method == "POST" and max_content_length is not None and _TAKES_CURSOR.fullmatch(path):
            max_content_length = max(max_content_length, CURSOR_BODY_BYTES)
        self.most_body_bytes = max_content_length
        super().__init__(method, scheme, path, *rest, max_content_length=max_content_length, **named)
