"""kafka_chat.client as the conformance suite runs it."""

from __future__ import annotations

import argparse
import json
import sys

import msgspec
import trio

from kafka_chat.client import Event, Gap, Message, Refused, open_chat


def tell(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def show(event: Event) -> None:
    if isinstance(event, Message):
        tell(message=json.loads(event.frame))
    elif isinstance(event, Gap):
        tell(gap=msgspec.to_builtins(event))
    else:
        tell(state=msgspec.to_builtins(event, str_keys=True))


async def run(asked: argparse.Namespace) -> None:
    final = {"code": 1000, "reason": ""}
    try:
        async with open_chat(
            asked.url,
            asked.username,
            cursor=asked.cursor,
            from_=asked.from_,
            until=asked.until,
            chats=asked.chat,
            tell=lambda sentence: tell(state=sentence),
        ) as chat:
            async for event in chat:
                show(event)
    except Refused as refused:
        final = {"code": refused.code, "reason": refused.reason}
    tell(final=final)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("username")
    parser.add_argument("--cursor")
    parser.add_argument("--from", dest="from_")
    parser.add_argument("--until")
    parser.add_argument("--chat", action="append", default=[])
    trio.run(run, parser.parse_args())


main()
