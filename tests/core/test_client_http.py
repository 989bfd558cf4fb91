"""A request over HTTP arrives as it was made, and the answer comes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from kafka_chat.client.http_api import Away, Refused, ask, subscribe


class Asked:
    """What was asked: the first lines of requests, and their bodies."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bodies: list[Any] = []


@asynccontextmanager
async def answering(answer: bytes, *, status: str = "200 OK", headers: str = "") -> AsyncIterator[tuple[str, Asked]]:
    """A service that always answers the same; yields its URL."""
    asked = Asked()

    async def serve(stream: trio.SocketStream) -> None:
        said = b""
        while b"\r\n\r\n" not in said:
            said += await stream.receive_some()
        head, _, body = said.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.splitlines() if line.lower().startswith(b"content-length:")), 0)
        while len(body) < length:
            body += await stream.receive_some()
        asked.lines.append(head.splitlines()[0].decode())
        asked.bodies.append(json.loads(body) if body else None)
        await stream.send_all(f"HTTP/1.1 {status}\r\nContent-Length: {len(answer)}\r\n{headers}Connection: close\r\n\r\n".encode() + answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}", asked
        nursery.cancel_scope.cancel()


async def test_a_user_is_subscribed_to_all_chats_at_once_whatever_their_names() -> None:
    async with answering(b'{"chats":[]}') as (url, asked):
        await subscribe(url + "/chat", "ann/é", ["room1", "a&b"])
    assert asked.lines == ["POST /chat/subscribing/ann%2F%C3%A9?topic=room1&topic=a%26b HTTP/1.1"]


async def test_a_body_is_json_and_so_is_the_answer() -> None:
    async with answering(b'{"offset":5}') as (url, asked):
        assert await ask(url, "POST", "/send-message/chat/room1", {"text": "é"}) == {"offset": 5}
        assert await ask(url, "GET", "/history/room1") == {"offset": 5}
    assert asked.lines == ["POST /send-message/chat/room1 HTTP/1.1", "GET /history/room1 HTTP/1.1"]
    assert asked.bodies == [{"text": "é"}, None]


@pytest.mark.parametrize("answer", [b"[]", b"hello", b""])
async def test_what_is_no_object_is_another_service(answer: bytes) -> None:
    async with answering(answer) as (url, _):
        with pytest.raises(Refused, match="is it another service"):
            await ask(url, "GET", "/history/room1")


async def test_a_refusal_is_for_good_or_for_now_as_its_status_says() -> None:
    said = b'{"error":"chat is wrong","field":"chat"}'
    async with answering(said, status="400 Bad Request") as (url, _):
        with pytest.raises(Refused, match=r"chat is wrong \(400\)") as refused:
            await ask(url, "GET", "/history/room1")
        assert (refused.value.code, refused.value.reason, refused.value.field) == (400, "chat is wrong", "chat")
    async with answering(said, status="503 Service Unavailable", headers="Retry-After: 7\r\n") as (url, _):
        with pytest.raises(Away) as away:
            await ask(url, "GET", "/history/room1")
        assert (away.value.code, away.value.retry_seconds) == (503, 7)
    with pytest.raises(Away, match="cannot be reached"):
        await ask(url, "GET", "/history/room1")


async def test_which_chats_do_not_exist_yet_is_known_to_who_subscribes() -> None:
    chats = [
        {"chat": chat, "topic": f"kafka.chat.{chat}", "exists": chat == "there", "default": False} for chat in ("absent", "other", "there")
    ]
    async with answering(json.dumps({"username": "ann", "chats": chats}).encode()) as (url, _):
        assert await subscribe(url, "ann", ["there", "absent", "kafka.chat.other"]) == ["absent", "kafka.chat.other"]


@pytest.mark.parametrize("answer", [b"{}", b'{"chats":[{"chat":"room"}]}', b'{"chats":7}'])
async def test_what_does_not_say_which_chats_are_followed_is_another_service(answer: bytes) -> None:
    async with answering(answer) as (url, _):
        with pytest.raises(Refused, match="is it another service"):
            await subscribe(url, "ann", ["room"])
