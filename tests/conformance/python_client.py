"""`kafka_chat.client` as the conformance suite runs it."""

from __future__ import annotations

import argparse
import json
from typing import Any

import trio

from kafka_chat.client import Away, Gap, Message, Refused, Skipped, open_chat


async def main() -> None:
    """Tell all that comes to a user."""
    parser = argparse.ArgumentParser()
    for name in ("url", "username", "--cursor", "--from", "--until"):
        parser.add_argument(name)
    parser.add_argument("--chat", action="append", default=[])
    parser.add_argument("--token", action="append", default=[])
    asked = vars(parser.parse_args())
    options: dict[str, Any] = {"cursor": asked["cursor"], "from_": asked["from"], "until": asked["until"], "chats": asked["chat"]}
    left = iter(asked["token"])

    async def token() -> str:
        await trio.lowlevel.checkpoint()
        found = next(left, asked["token"][-1])
        if not found:
            raise Away("whoever makes the tokens cannot be reached")
        return found

    options["token"] = token if asked["token"] else None
    try:
        async with open_chat(asked["url"], asked["username"], **options, tell=lambda sentence: tell(state=sentence)) as chat:
            async for event in chat:
                if isinstance(event, Message):
                    tell(message=json.loads(event.frame))
                elif isinstance(event, Gap):
                    fields = ("chat", "partition", "first_lost", "first_left", "cause")
                    tell(gap={name: getattr(event, name) for name in fields})
                elif isinstance(event, Skipped):
                    tell(skipped={name: getattr(event, name) for name in ("chat", "partition", "offset", "cause")})
        tell(final={"code": 1000, "reason": "until is reached"})
    except Refused as refused:
        tell(final={"code": refused.code, "reason": refused.reason})


def tell(**line: object) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - that is what the suite reads


if __name__ == "__main__":
    trio.run(main)
