"""A server that runs the app on asyncio gets one sentence of error, instead of answering 500 forever."""

from __future__ import annotations

import sys

import pytest

from tests.support.serving import child

EMBEDDED = {"KAFKA_CHAT_KAFKA__EMBEDDED": "true"}
HYPERCORN = [sys.executable, "-m", "hypercorn", "-w", "0", "--bind", "127.0.0.1:0", "kafka_chat.asgi:app"]
# As uvicorn calls it: a lifespan that fails is one that the app does not have, whatever it raises; then requests come.
LIKE_UVICORN = """
import asyncio
from kafka_chat.asgi import app
HTTP = {"type": "http", "method": "GET", "path": "/health", "raw_path": b"/health", "query_string": b"", "headers": [], "scheme": "http",
        "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"}, "client": None, "server": None}
async def receive(): return {"type": "lifespan.startup"}
async def send(event): print(event)
async def serve():
    for scope in SCOPES:
        try:
            await app(scope, receive, send)
        except BaseException as error:
            print("passed over", error)
asyncio.run(serve())
"""


@pytest.mark.parametrize(
    "command",
    [
        HYPERCORN,
        [sys.executable, "-c", LIKE_UVICORN.replace("SCOPES", "[{'type': 'lifespan', 'asgi': {}, 'state': {}}]")],
        [sys.executable, "-c", LIKE_UVICORN.replace("SCOPES", "[HTTP]")],  # `--lifespan off`
    ],
    ids=["hypercorn", "uvicorn", "without a lifespan"],
)
@pytest.mark.promise("p-trio-only")
async def test_it_ends_with_one_sentence_that_says_how_to_start_it(command: list[str]) -> None:
    async with child(command, env=EMBEDDED) as server:
        assert await server.wait(seconds=40) == 2
        assert server.stdout == ""
        (line,) = server.stderr.splitlines()
        assert "needs trio; start it with `kafka-chat serve`, or with `hypercorn -k trio kafka_chat.asgi:app`" in line
