"""Everything that a client can ask for, good and bad, each as one visit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import trio

from .clients import Opcode, http, open_chat, open_raw, receive_path, refusal
from .events_client import open_events
from .v1_client import open_v1

ANN = "ann"
ABSENT = [f"absent{number}" for number in range(5)]
JSON = {"sender": ANN, "text": "hello"}

BUSY_TIMES, BUSY_SECONDS = 100, 0.2  # how often and when to retry a 503, since brokers are late on a busy machine

Visit = Callable[[str], Awaitable[None]]

REQUESTS: Mapping[str, tuple[str, str, dict[str, object], int]] = {
    "health": ("GET", "/health", {}, 200),
    "metrics": ("GET", "/metrics", {}, 200),
    "a document": ("GET", "/openapi.json", {}, 200),
    "the browser's client": ("GET", "/kafka-chat.js", {}, 200),
    "an address where nothing is": ("GET", "/nothing/here", {}, 404),
    "a method that is not allowed": ("DELETE", "/health", {}, 405),
    "a path that only a WebSocket has": ("GET", receive_path(ANN), {}, 426),
    "what somebody follows": ("GET", "/subscribing/many", {}, 200),
    "subscribing to absent chats": ("POST", "/subscribing/ben?" + "&".join(f"topic={chat}" for chat in ABSENT), {}, 200),
    "unsubscribing": ("DELETE", "/subscribing/ben", {}, 200),
    "subscribing to nothing": ("POST", "/subscribing/ben", {}, 400),
    "unsubscribing from what all follow": ("DELETE", "/subscribing/ben?topic=global", {}, 409),
    "a page of history": ("GET", "/history/global?rewind=3", {}, 200),
    "a page that waits": ("GET", "/history/global?from=latest", {"headers": {"Prefer": "wait=1"}}, 200),
    "a page of an absent chat": ("GET", "/history/absent", {}, 404),
    "a page of bad parameters": ("GET", "/history/global?limit=x", {}, 400),
    "sending": ("POST", "/send-message/chat/global", {"json_body": JSON}, 200),
    "sending to an absent chat": ("POST", "/send-message/chat/absent", {"json_body": JSON}, 404),
    "sending a wrong body": ("POST", "/send-message/chat/global", {"json_body": {"text": 1}}, 400),
    "sending too much": ("POST", "/send-message/chat/global", {"body": b"x" * 100_000}, 413),
}


async def _request(url: str, *, method: str, target: str, more: dict[str, object], status: int) -> None:
    for _ in range(BUSY_TIMES):
        answer = await http(url, method, target, **more)  # type: ignore[arg-type]  # as REQUESTS has them
        if answer.status != 503:
            break
        await trio.sleep(BUSY_SECONDS)
    assert answer.status == status, answer


async def _bare(url: str) -> None:
    async with open_chat(url, ANN) as client:
        await client.send("what nobody asked for")
        await client.ping()


async def _cut(url: str) -> None:
    async with open_raw(url, receive_path(ANN)) as client:
        await client.ping()
        client.reset()


async def _too_large(url: str) -> None:
    async with open_raw(url, receive_path(ANN)) as client:
        await client.send_frame(Opcode.TEXT, b"x" * 100_000)
        await client.wait_ended()


async def _ops(url: str) -> None:
    async with open_v1(url, ANN) as client:
        await client.control("live")
        for op in ("ping", "subscribe", "unsubscribe", "send", "dance"):
            await client.op(op=op, chat="absent", text="hello")
        await client.op(op="send", chat="global", text="hello")
        await client.say("no JSON")
        await client.control("error")


async def _resumes(url: str) -> None:
    async with open_v1(url, ANN, ("rewind", "1")) as client:
        await client.control("live")
        cursor = client.cursor
    async with open_v1(url, ANN, cursor=cursor) as client:
        await client.control("live")


async def _until(url: str) -> None:
    async with open_v1(url, ANN, ("from", "earliest"), ("until", "2020-01-01T00:00:00Z")) as client:
        await client.closed()


async def _refused(url: str) -> None:
    assert (await refusal(url, receive_path(ANN) + "?from=never")).status == 400
    assert (await refusal(url, "/nothing/here")).status == 404


async def _dialogue(url: str) -> None:
    async with open_raw(url, "/subscribing/ann") as client:
        for said in (b'{"op":"subscribe","topic":"absent"}', b'{"op":"unsubscribe","topic":"absent"}', b"no JSON"):
            await client.send_frame(Opcode.TEXT, said)
            await client.next_text()


async def _events(url: str) -> None:
    async with open_events(url, ANN, "rewind=1") as client:
        await client.take(1)


VISITS: Mapping[str, Visit] = {
    **{
        name: partial(_request, method=method, target=target, more=more, status=status)
        for name, (method, target, more, status) in REQUESTS.items()
    },
    "a bare client": _bare,
    "a client that is cut": _cut,
    "a client that says too much": _too_large,
    "ops, good and bad": _ops,
    "a client that comes back": _resumes,
    "a client with an end": _until,
    "refused handshakes": _refused,
    "a dialogue": _dialogue,
    "an event stream": _events,
}
