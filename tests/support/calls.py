"""Requests to a running service over HTTP, and waits that poll."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote, urlencode

import trio

from kafka_chat.settings.model import Settings

from .deadlines import HANG_SECONDS
from .http_client import Answer, http
from .serving import Server, serving, until_ready

AGAIN_SECONDS = 0.2
SAMPLE = re.compile(r"(?m)^(kafka_chat_\w+(?:\{[^}]*\})?) (\S+)$")


@asynccontextmanager
async def running(settings: Settings, *, check_leaks: bool = True) -> AsyncIterator[Server]:
    """Serve while the block runs; once it has begun, `/ready` says so."""
    async with serving(settings, check_leaks=check_leaks) as server:
        await until_ready(server)
        yield server


async def subscribe(url: str, username: str, *chats: str) -> list[str]:
    """Subscribe a user, and return the chats that are then followed."""
    return _chats(await http(url, "POST", _target(username, chats)))


async def unsubscribe(url: str, username: str, *chats: str) -> list[str]:
    """Unsubscribe a user, from all where no chat is named, and return the chats that are then followed."""
    return _chats(await http(url, "DELETE", _target(username, chats)))


async def subscribe_patiently(url: str, username: str, *chats: str) -> list[str]:
    """Subscribe a user, repeating the request after a 503, and return the chats that are then followed."""
    return _chats(await _answered(url, "POST", _target(username, chats)))


async def unsubscribe_patiently(url: str, username: str, *chats: str) -> list[str]:
    """Unsubscribe a user, repeating the request after a 503."""
    return _chats(await _answered(url, "DELETE", _target(username, chats)))


async def following(url: str, username: str) -> list[str]:
    """Return the chats that a user follows."""
    return _chats(await http(url, "GET", _target(username, ())))


async def metrics(url: str) -> dict[str, float]:
    """Return our metrics, name and labels as they are written -> value."""
    answer = await http(url, "GET", "/metrics")
    assert answer.status == 200, answer
    return {name: float(value) for name, value in SAMPLE.findall(answer.text)}


async def metric(url: str, name: str) -> float:
    """Return one metric; 0 where nothing was counted yet.

    Args:
        url: of the service.
        name: without `kafka_chat_`, with its labels.
    """
    return (await metrics(url)).get(f"kafka_chat_{name}", 0.0)


async def until(true: Callable[[], object], *, seconds: float = HANG_SECONDS) -> None:
    """Wait until what `true()` returns, or an awaitable that it returns, is true.

    Raises:
        trio.TooSlowError: it was not, in time.
    """
    with trio.fail_after(seconds):
        while not (await holds if isinstance(holds := true(), Awaitable) else holds):  # noqa: ASYNC110 - it tells nobody
            await trio.sleep(0.01)


@asynccontextmanager
async def meanwhile(act: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Do something again and again while the block runs, and let it be finished."""
    ended = False

    async def repeat() -> None:
        while not ended:
            await act()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(repeat)
        try:
            yield
        finally:
            ended = True


async def _answered(url: str, method: str, target: str) -> Answer:
    """Send a request, repeating it while brokers cannot answer."""
    with trio.fail_after(HANG_SECONDS):
        while (answer := await http(url, method, target)).status == 503:  # noqa: ASYNC110 - nobody is told
            await trio.sleep(AGAIN_SECONDS)
    return answer


def _target(username: str, chats: tuple[str, ...]) -> str:
    return f"/subscribing/{quote(username, safe='')}" + ("?" + urlencode([("topic", chat) for chat in chats]) if chats else "")


def _chats(answer: Answer) -> list[str]:
    assert answer.status == 200, answer
    body = answer.json()
    assert isinstance(body, dict), body
    return [followed["chat"] for followed in body["chats"]]
