"""A client of the service on trio: what it says over HTTP, and a WebSocket that comes back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http.client import HTTPException
from random import uniform
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    DisconnectionTimeout,
    HandshakeError,
    open_websocket_url,
)

from .errors import KafkaChatError

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER_SECONDS = 10.0  # the service answers everything within 5
LONGEST_FRAME = 1 << 24  # bytes; `limits.message_bytes` may be set above what trio-websocket takes by default
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 30.0  # a connection that lasted so long is no failed try

# What will be no better the next time: docs/protocol.md, "Close codes".
_FINAL_CODES = frozenset({1002, 1003, 1007, 1008, 1009, 1010})


class Refused(KafkaChatError):
    """The service, or the way to it, does not do what was asked: a sentence."""


@dataclass(slots=True)
class Pauses:
    """Full-jitter back-off: any pause up to a bound that doubles, so that who left together does not come back together."""

    bound_seconds: float = FIRST_PAUSE_SECONDS

    def next(self) -> float:
        """Return how many seconds to wait before the next try."""
        pause = uniform(0, self.bound_seconds)
        self.bound_seconds = min(LONGEST_PAUSE_SECONDS, self.bound_seconds * 2)
        return pause

    def reset(self) -> None:
        """A try has succeeded."""
        self.bound_seconds = FIRST_PAUSE_SECONDS


async def ask(url: str, method: str, path: str, body: object = None) -> dict[str, object]:
    """Ask the service over HTTP and return what it answers.

    Args:
        url: of the service, `http://host:port`, with a path prefix if it has one.
        method: of HTTP.
        path: from `/` on, percent-encoded.
        body: sent as JSON; None for none.

    Raises:
        Refused: it answered with an error, or not at all.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if data is not None else {}
    request = Request(_http(url) + path, data=data, headers=headers, method=method)
    # Abandoned where it is cancelled: it holds nothing but its socket, and ends by its timeout.
    return await trio.to_thread.run_sync(_ask, request, abandon_on_cancel=True)


def _ask(request: Request) -> dict[str, object]:
    try:
        with urlopen(request, timeout=ANSWER_SECONDS) as answer:
            found = json.loads(answer.read())
    except HTTPError as error:
        raise Refused(_sentence(error.code, error.read())) from error
    except URLError as error:
        raise Refused(f"{request.host} cannot be reached: {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise Refused(f"{request.host} did not answer: {error}") from error
    except ValueError as error:
        raise Refused(f"{request.host} did not answer with JSON; is it kafka_chat?") from error
    if not isinstance(found, dict):
        raise Refused(f"{request.host} answered something else than kafka_chat does")
    return found


async def subscribe(url: str, username: str, chats: list[str]) -> None:
    """Subscribe a user to chats; raises `Refused`."""
    topics = "&".join(f"topic={quote(chat, safe='')}" for chat in chats)
    await ask(url, "POST", f"/subscribing/{quote(username, safe='')}?{topics}")


async def listen(url: str, username: str, *, deliver: Callable[[str], None], tell: Callable[[str], None]) -> None:
    """Deliver a user's messages, frame by frame, until cancelled; come back when the connection is lost.

    What is sent while it is lost is not delivered.

    Args:
        url: of the service, `http://host:port`.
        username: whose messages.
        deliver: takes each frame's text.
        tell: takes a sentence when the connection comes or goes.

    Raises:
        Refused: coming again will not help.
    """
    address = "ws" + _http(url).removeprefix("http") + f"/receive-message/client/{quote(username, safe='')}"
    pauses = Pauses()
    while True:
        began = trio.current_time()
        why = await _listen_once(address, deliver, lambda: tell(f"connected to {url} as {username}"))
        if trio.current_time() - began > STEADY_SECONDS:
            pauses.reset()
        pause = pauses.next()
        tell(f"{why}; trying again in {pause:.1f} s")
        await trio.sleep(pause)


async def _listen_once(address: str, deliver: Callable[[str], None], connected: Callable[[], None]) -> str:
    """Deliver over one connection; return why it ended, or raise `Refused` where the next one would end alike."""
    try:
        async with open_websocket_url(
            address, connect_timeout=ANSWER_SECONDS, disconnect_timeout=1.0, max_message_size=LONGEST_FRAME
        ) as socket:
            connected()
            while True:
                frame = await socket.get_message()
                deliver(frame if isinstance(frame, str) else frame.decode(errors="replace"))
    except ConnectionClosed as closed:
        return _why_closed(closed)
    except ConnectionRejected as rejected:
        sentence = _sentence(rejected.status_code, rejected.body or b"")
        if rejected.status_code < 500:
            raise Refused(sentence) from rejected
        return sentence
    except (ConnectionTimeout, DisconnectionTimeout):
        return "the service did not answer in time"
    except HandshakeError as error:
        return f"the service cannot be reached: {error.__cause__ or 'its handshake is not one of WebSocket'}"


def _why_closed(closed: ConnectionClosed) -> str:
    if closed.reason is None:
        return "the connection was lost"
    sentence = f"the service closed the connection: {closed.reason.code} {closed.reason.reason or closed.reason.name}"
    if closed.reason.code in _FINAL_CODES:
        raise Refused(sentence) from closed
    return sentence


def _http(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise Refused(f'--url is "{url}"; http://HOST:PORT is needed')
    return url.rstrip("/")


def _sentence(status: int, body: bytes) -> str:
    """Return the sentence of an error body, or what there is instead."""
    try:
        return f"{json.loads(body)['error']} ({status})"
    except (ValueError, KeyError, TypeError):
        return f"the service answered {status}"
