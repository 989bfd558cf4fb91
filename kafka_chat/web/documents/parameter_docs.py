"""The parameters of kafka-chat.v1 for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from ..requests.parameters import REPEATED, REWIND

Fragment = dict[str, Any]

_TIMES = (
    "a time by RFC 3339 (`2026-11-25T10:00:00Z`), Unix milliseconds (a number under 10^11 is refused: seconds are meant), "
    "or a span before now (`-90s`, `-15m`, `-2h`, `-7d`)"
)


def parameter(name: str, description: str, example: object, **schema: Any) -> Fragment:  # noqa: ANN401 - whatever a Schema Object has
    """Return the Parameter Object of a parameter that may be given once."""
    schema.setdefault("type", "string")
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema, "example": example}


def repeated(name: str, description: str, example: list[str], *, most: int | None = REPEATED) -> Fragment:
    """Return the Parameter Object of a parameter that may be repeated."""
    schema: Fragment = {"items": {"type": "string"}}
    if most is not None:
        schema["maxItems"] = most
    return {**parameter(name, description, example, type="array", **schema), "style": "form", "explode": True}


CURSOR = repeated(
    "cursor",
    "Begin after this position: a `cursor`, the `id` of a message, or both joined by a dot, as received. Of several, the later one "
    "wins for each partition.",
    ["AQAAAAAA"],
    most=None,
)
FROM = parameter(
    "from", f"Where to begin without a cursor: `latest`, `earliest`, {_TIMES}; at the first message with that time or a later one.", "-15m"
)
REWIND_BY = parameter(
    "rewind",
    "Begin with the last N messages that pass the filter, where neither `cursor` nor `from` is given.",
    50,
    type="integer",
    minimum=1,
    maximum=REWIND,
)
UNTIL = parameter(
    "until", f"Only messages that are older by their own time, and then the end: {_TIMES}; at most a minute ahead.", "2026-11-25T10:00:00Z"
)
CHATS = repeated("chat", "Only these chats, subscribed or not. Nothing is stored.", ["room1"])
TAGS = repeated("tag", "Only messages with one of these tags, or without any. A filter, not access control.", ["blue"])
SENDERS = repeated("sender", "Only messages from one of these senders. A filter, not access control.", ["bob"])
META = parameter("meta", "1 asks for `kafka-chat.v1` where the subprotocol cannot be offered.", "1", enum=["0", "1"])
HEARTBEAT = parameter("heartbeat", "`kafka-chat.v1`: a frame with the cursor every N seconds; 10 to 600, clamped.", 25, type="integer")
