"""A client of the service on trio: what it asks over HTTP, and a WebSocket that comes back."""

from __future__ import annotations

import json
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from math import inf
from random import uniform
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    DisconnectionTimeout,
    HandshakeError,
    open_websocket_url,
)

from .errors import KafkaChatError, SettingsError
from .nursery import open_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

ANSWER_SECONDS = 10.0  # the service answers everything within 5
QUIET_SECONDS = 30.0  # after so long without a frame we ask whether the other end is still there
QUEUED_FRAMES = 100  # what may come between our ping and its pong: nothing is taken from the queue meanwhile
LONGEST_FRAME = 1 << 24  # bytes; `limits.message_bytes` may be set above what trio-websocket takes by default
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 30.0  # a connection that lasted so long is no failed try

# What will be no better the next time: docs/protocol.md, "Close codes".
_FINAL_CODES = frozenset({1002, 1003, 1007, 1008, 1009, 1010})


class Refused(KafkaChatError):
    """The service does not do what was asked, and would not the next time: a sentence."""


class Away(KafkaChatError):
    """The service cannot be reached, or does not do it now: a sentence.

    Attributes:
        retry_seconds: how long to stay away at least, as it said itself.
    """

    def __init__(self, sentence: str, *, retry_seconds: int = 0) -> None:
        super().__init__(sentence)
        self.retry_seconds = retry_seconds


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


class Address(NamedTuple):
    """Where the service is, taken apart."""

    secure: bool
    host: str
    port: int | None
    prefix: str

    @property
    def place(self) -> str:
        """`HOST:PORT`, or `HOST` where the scheme says the port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    def websocket(self, path: str) -> str:
        """Return the URL of a WebSocket there."""
        return f"{'wss' if self.secure else 'ws'}://{self.place}{self.prefix}{path}"


def address_of(url: str) -> Address:
    """Take the service's URL apart; raises `SettingsError` where it is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment or parts.username)
        if usable and parts.hostname and url.isascii() and url.isprintable() and " " not in url:
            return Address(parts.scheme == "https", parts.hostname, parts.port, parts.path.rstrip("/"))
    except ValueError:  # a port that is none, a bracket too few
        pass
    raise SettingsError(f'--url is "{url}"; http://HOST:PORT or https://HOST:PORT is needed')


async def ask(url: str, method: str, path: str, body: object = None) -> dict[str, object]:
    """Ask the service over HTTP and return what it answers.

    Args:
        url: of the service, `http://host:port`, with a path prefix if it has one.
        method: of HTTP.
        path: from `/` on, percent-encoded.
        body: sent as JSON; None for none.

    Raises:
        Refused: it answered with an error.
        Away: it did not answer, or cannot do it now.
        SettingsError: `url` is none.
    """
    address = address_of(url)
    content = None if body is None else json.dumps(body).encode()
    # Abandoned where it is cancelled: it holds nothing but its socket, and ends by its timeout.
    return await trio.to_thread.run_sync(_ask, address, method, path, content, abandon_on_cancel=True)


def _ask(address: Address, method: str, path: str, content: bytes | None) -> dict[str, object]:
    kind = HTTPSConnection if address.secure else HTTPConnection
    connection = kind(address.host, address.port, timeout=ANSWER_SECONDS)
    headers = {"Content-Type": "application/json"} if content is not None else {}
    try:
        connection.request(method, address.prefix + path, body=content, headers=headers)
        answer = connection.getresponse()
        said = answer.read()
    except (OSError, HTTPException) as error:
        raise Away(_unreached(address, error)) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise _refusal(address, answer.status, said, answer.headers.get("Retry-After", ""))
    try:
        found = json.loads(said)
    except ValueError as error:
        raise Refused(f"{address.place} does not answer as kafka_chat does; is it another service?") from error
    if not isinstance(found, dict):
        raise Refused(f"{address.place} does not answer as kafka_chat does; is it another service?")
    return found


async def subscribe(url: str, username: str, chats: Sequence[str]) -> None:
    """Subscribe a user to chats; raises as `ask` does."""
    topics = "&".join(f"topic={quoted(chat)}" for chat in chats)
    await ask(url, "POST", f"/subscribing/{quoted(username)}?{topics}")


def quoted(name: str) -> str:
    """Return a name as it stands in a path; one that was typed in no UTF-8 as it was typed, for the service to refuse."""
    return quote(name, safe="", errors="surrogateescape")


@asynccontextmanager
async def open_listener(
    url: str, username: str, *, chats: Sequence[str] = (), tell: Callable[[str], None]
) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
    """Receive a user's messages, for as long as the block lasts; the connection comes back when it is lost.

    What is sent while it is lost is not received.

    ```python
    async with open_listener("http://127.0.0.1:8001", "ann", tell=print) as frames:
        async for frame in frames:
            print(frame)
    ```

    Args:
        url: of the service, `http://host:port`.
        username: whose messages.
        chats: to which the user is subscribed first.
        tell: takes a sentence when the connection comes or goes.

    Yields:
        Each frame's text, as it came.

    Raises:
        Refused: coming again will not help.
        SettingsError: `url` is none.
    """
    address = address_of(url)
    came, frames = trio.open_memory_channel[str](0)
    async with frames, came, open_tasks() as tasks:
        tasks.start_soon(_listen, url, address, username, chats, came, tell)
        yield frames


async def _listen(
    url: str,
    address: Address,
    username: str,
    chats: Sequence[str],
    came: trio.MemorySendChannel[str],
    tell: Callable[[str], None],
) -> None:
    """Connect again and again, until cancelled or refused."""
    pauses = Pauses()
    socket_url = address.websocket(f"/receive-message/client/{quoted(username)}")
    while True:
        connected = inf
        retry_seconds = 0

        def begun() -> None:
            nonlocal connected
            connected = trio.current_time()
            tell(f"connected to {url} as {username}")

        try:
            if chats:
                await subscribe(url, username, chats)
                tell(f"subscribed {username} to {', '.join(chats)}")
                chats = ()
            why = await _listen_once(address, socket_url, came, begun)
        except Away as away:
            why, retry_seconds = str(away), away.retry_seconds
        if trio.current_time() - connected > STEADY_SECONDS:
            pauses.reset()
        pause = retry_seconds + pauses.next()
        tell(f"{why}; trying again {f'in {pause:.1f} s' if pause >= 0.1 else 'now'}")
        await trio.sleep(pause)


async def _listen_once(address: Address, socket_url: str, came: trio.MemorySendChannel[str], connected: Callable[[], None]) -> str:
    """Receive over one connection, and return why it ended.

    Raises:
        Refused: the next one would end alike.
        Away: there was none.
    """
    try:
        async with open_websocket_url(
            socket_url,
            connect_timeout=ANSWER_SECONDS,
            disconnect_timeout=1.0,
            message_queue_size=QUEUED_FRAMES,
            max_message_size=LONGEST_FRAME,
        ) as socket:
            connected()
            while True:
                with trio.move_on_after(QUIET_SECONDS) as quiet:
                    frame = await socket.get_message()
                if quiet.cancelled_caught:
                    with trio.fail_after(ANSWER_SECONDS):
                        await socket.ping()
                    continue
                await came.send(frame if isinstance(frame, str) else frame.decode(errors="replace"))
    except ConnectionClosed as closed:
        return _why_closed(closed)
    except ConnectionRejected as rejected:
        headers = dict(rejected.headers)
        raise _refusal(address, rejected.status_code, rejected.body or b"", headers.get(b"retry-after", b"").decode()) from rejected
    except (ConnectionTimeout, DisconnectionTimeout, trio.TooSlowError):
        return "the service does not answer any more"
    except HandshakeError as error:
        raise Away(_unreached(address, error)) from error


def _why_closed(closed: ConnectionClosed) -> str:
    if closed.reason is None or closed.reason.code == 1006:
        return "the connection was lost"
    sentence = f"the service closed the connection: {closed.reason.code} {closed.reason.reason or closed.reason.name}"
    if closed.reason.code in _FINAL_CODES:
        raise Refused(sentence) from closed
    return sentence


def _refusal(address: Address, status: int, body: bytes, retry_after: str) -> Refused | Away:
    """Return the error for an answer: the service's own sentence, or what there is instead."""
    try:
        sentence = f"{json.loads(body)['error']} ({status})"
    except (ValueError, KeyError, TypeError):
        sentence = f"{address.place} answers with HTTP status {status}, and not as kafka_chat does; is it another service?"
    if status < 500:
        return Refused(sentence)
    return Away(sentence, retry_seconds=min(int(retry_after), 60) if retry_after.isdecimal() else 0)


def _unreached(address: Address, error: BaseException) -> str:
    """Return a sentence for why nobody answers there: what the system said, however deep it lies."""
    while True:
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
        if inner is None:
            break
        error = inner
    why = str(error) or "it speaks another protocol"
    if isinstance(error, OSError) and error.strerror:
        # Trio puts the address before it, which is there already; a name that cannot be resolved has a number of its own kind.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    hint = "; is `kafka-chat serve` running?" if isinstance(error, ConnectionRefusedError) else ""
    return f"{address.place} cannot be reached: {why}{hint}"
