"""An answer that is cut off by its client, a limit or the end of a drain ends its connection, without an error of h11."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from kafka_chat.web.server.connection import ChatTCPServer
from kafka_chat.web.server.policy import CONNECTION
from tests.edges.small_app import PATH, Served, serving_small
from tests.support.deadlines import HANG_SECONDS
from tests.support.raw_client import handshake_request, open_raw

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"
HANDSHAKE = handshake_request(PATH)
LENGTH = [(b"content-length", b"2")]
ANSWERS: dict[str, tuple[bytes, list[dict[str, Any]]]] = {
    "an answer": (
        GET,
        [
            {"type": "http.response.start", "status": 200, "headers": LENGTH},
            {"type": "http.response.body", "body": b"h", "more_body": True},
            {"type": "http.response.body", "body": b"i", "more_body": False},
        ],
    ),
    "an answer in chunks": (
        GET,
        [
            {"type": "http.response.start", "status": 200, "headers": []},
            {"type": "http.response.body", "body": b"h", "more_body": True},
            {"type": "http.response.body", "body": b"", "more_body": False},
        ],
    ),
    "an answer by HTTP/1.0": (
        OLD,
        [
            {"type": "http.response.start", "status": 200, "headers": []},
            {"type": "http.response.body", "body": b"hi", "more_body": False},
        ],
    ),
    "no answer at all": (GET, []),
    "a handshake that is refused": (
        HANDSHAKE,
        [
            {"type": "websocket.http.response.start", "status": 503, "headers": LENGTH},
            {"type": "websocket.http.response.body", "body": b"h", "more_body": True},
            {"type": "websocket.http.response.body", "body": b"i", "more_body": False},
        ],
    ),
    "a handshake that is denied": (HANDSHAKE, [{"type": "websocket.close"}]),
    "a WebSocket": (
        HANDSHAKE,
        [
            {"type": "websocket.accept", "subprotocol": None, "headers": []},
            {"type": "websocket.send", "text": "hi"},
            {"type": "websocket.close", "code": 1000, "reason": ""},
        ],
    ),
    "no word about a handshake": (HANDSHAKE, []),
}
MOMENTS = [(name, moment) for name, (_, messages) in ANSWERS.items() for moment in range(len(messages) + 1)]


def aborted(connection: ChatTCPServer) -> None:
    connection.abort("write_seconds")


def cancelled(connection: ChatTCPServer) -> None:
    """As where the server ends while its grace is over: the socket would still take what is written."""
    connection.over_within(0)


def answering(served: Served, app: Callable[[Scope, ASGIReceiveCallable, ASGISendCallable], Awaitable[None]]) -> None:
    """Have every request from now on answered by an ASGI app."""
    served.app.asgi_app = app  # type: ignore[method-assign]


async def answered_up_to(served: Served, name: str, moment: int, cut: Callable[[ChatTCPServer], None]) -> None:
    """Have an answer cut right before one of its messages, or behind the last one, and wait until nothing is left of its connection."""
    request, messages = ANSWERS[name]
    ended = trio.Event()

    async def answer(scope: Any, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        try:
            for message in messages[:moment]:
                await send(message)  # type: ignore[arg-type]
            cut(scope["state"][CONNECTION])
            for message in messages[moment:]:
                await send(message)  # type: ignore[arg-type]
        finally:
            ended.set()

    answering(served, answer)
    async with open_raw(served.url) as client:
        await client.send(request)
        with trio.fail_after(HANG_SECONDS):
            await ended.wait()
            while served.app.policy.connections.count:  # noqa: ASYNC110 - a connection tells nobody of its end
                await trio.sleep(0.001)


@pytest.mark.parametrize("cut", [aborted, cancelled])
async def test_a_cut_before_any_message_of_an_answer_is_no_failure(cut: Callable[[ChatTCPServer], None], caplog: pytest.LogCaptureFixture):
    async with serving_small() as served:
        async with open_raw(served.url) as client:  # so that the app has its policy
            await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await client.wait_ended()
        failed = []
        for name, moment in MOMENTS:
            caplog.clear()
            await answered_up_to(served, name, moment, cut)
            said = [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
            if said or served.service.telemetry.failed:
                failed.append((name, moment, said, served.service.telemetry.failed[:]))
                served.service.telemetry.failed.clear()
        assert failed == []


async def test_an_app_that_answers_behind_a_refusal_of_the_servers_own_is_not_written(caplog: pytest.LogCaptureFixture):
    """The app gets the disconnect; what it sends before it sees that is dropped."""
    async with serving_small() as served, open_raw(served.url) as client:
        begun, refused, said = trio.Event(), trio.Event(), trio.Event()

        async def answer(scope: Any, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            begun.set()
            with trio.CancelScope(shield=True), trio.fail_after(HANG_SECONDS):
                await refused.wait()
                for message in ANSWERS["an answer"][1]:
                    await send(message)  # type: ignore[arg-type]
                said.set()

        answering(served, answer)
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        with trio.fail_after(HANG_SECONDS):
            await begun.wait()
        served.service.owes_too_much = True
        await client.send(b"x" * 20_000)
        response = await client.read_response()
        assert response.status == 503
        refused.set()
        with trio.fail_after(HANG_SECONDS):
            await said.wait()
        await client.wait_ended()
        assert served.service.telemetry.failed == []
        assert [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []
