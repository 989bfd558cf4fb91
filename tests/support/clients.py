"""A WebSocket client with the library `websockets`, which shares no code with ours; it checks each frame."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import quote

import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import ClientConnection, connect

from .deadlines import HANG_SECONDS
from .http_client import Answer, http, no_constant
from .raw_client import BrokenStream, Frame, Opcode, RawClient, client_frame, close_code, handshake_request, open_raw

__all__ = [
    "Answer",
    "BrokenStream",
    "ChatClient",
    "Closed",
    "Delivery",
    "Frame",
    "Opcode",
    "RawClient",
    "client_frame",
    "close_code",
    "handshake_request",
    "http",
    "open_chat",
    "open_raw",
    "receive_path",
    "refusal",
]


class Delivery(NamedTuple):
    """What one frame says."""

    sender: str
    text: str
    tag: str | None
    chat: str


class Closed(NamedTuple):
    """How a connection ended; 1006 and no reason where no close frame came."""

    code: int
    reason: str


class WrongFrame(AssertionError):
    """A frame is not exactly a delivery."""


def receive_path(username: str) -> str:
    """Return the path where a user's messages come."""
    return "/receive-message/client/" + quote(username, safe="")


def parse_delivery(frame: str | bytes) -> Delivery:
    """Return what a frame says.

    Raises:
        WrongFrame: it is not text, not strict JSON, or does not have exactly the keys sender, text, tag, chat in this order.
    """
    if not isinstance(frame, str):
        raise WrongFrame(f"a binary frame: {frame[:100]!r}")
    try:
        pairs = json.loads(frame, object_pairs_hook=list, parse_constant=no_constant)
        frame.encode()  # json takes lone surrogates
    except ValueError as error:
        raise WrongFrame(f"no strict JSON in UTF-8 ({error}): {frame[:200]!r}") from error
    if not isinstance(pairs, list) or [pair[0] for pair in pairs if isinstance(pair, tuple)] != ["sender", "text", "tag", "chat"]:
        raise WrongFrame(f"not an object of sender, text, tag, chat in this order: {frame[:200]!r}")
    sender, text, tag, chat = (value for _, value in pairs)
    if not all(isinstance(value, str) for value in (sender, text, chat)) or not (tag is None or isinstance(tag, str)):
        raise WrongFrame(f"values of other types: {frame[:200]!r}")
    return Delivery(sender, text, tag, chat)


class ChatClient:
    """The client of the library `websockets`, which shares no code with our server, as its documentation has it.

    It reads at once, so it is never the reason for a delay.

    Attributes:
        received: everything so far, in order, also what `next` has returned.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.received: list[Delivery] = []
        self._connection = connection
        self._arrived = trio.Condition()
        self._returned = 0
        self._wrong: Exception | None = None
        self._closed: Closed | None = None

    async def next(self, *, seconds: float = HANG_SECONDS) -> Delivery:
        """Return the next message, in order of arrival.

        Raises:
            WrongFrame: what came is none.
            trio.TooSlowError: nothing came in time.
            AssertionError: the connection was closed instead.
        """
        return (await self.take(1, seconds=seconds))[0]

    async def take(self, count: int, *, seconds: float = HANG_SECONDS) -> list[Delivery]:
        """Return the next `count` messages, which have `seconds` for all of them."""
        last = self._returned + count
        with trio.move_on_after(seconds):
            async with self._arrived:
                while len(self.received) < last:
                    self._raise_wrong()
                    if self._closed is not None:
                        raise AssertionError(f"the connection was closed ({self._closed}) after {len(self.received)} of {last} messages")
                    await self._arrived.wait()
        if len(self.received) < last:
            raise trio.TooSlowError(f"{len(self.received)} of {last} messages came within {seconds:g} s; the last: {self.received[-1:]}")
        self._returned, first = last, self._returned
        return self.received[first:last]

    async def texts(self, count: int, *, seconds: float = HANG_SECONDS) -> list[str]:
        """Return the texts of the next `count` messages."""
        return [delivery.text for delivery in await self.take(count, seconds=seconds)]

    async def take_until(self, text: str, *, seconds: float = HANG_SECONDS) -> list[Delivery]:
        """Return the messages up to the one with this text, which is the last of them: a marker shows that no others came."""
        taken: list[Delivery] = []
        with trio.fail_after(seconds):
            while not taken or taken[-1].text != text:
                taken.append(await self.next(seconds=seconds))
        return taken

    async def closed(self, *, seconds: float = HANG_SECONDS) -> Closed:
        """Wait until the server has closed the connection, and return how."""
        with trio.fail_after(seconds):
            async with self._arrived:
                while self._closed is None:
                    await self._arrived.wait()
        self._raise_wrong()
        return self._closed

    @property
    def is_open(self) -> bool:
        """Whether the server has not closed it, as far as we have read."""
        return self._closed is None

    async def send(self, text: str | bytes) -> None:
        """Send a message."""
        await self._connection.send(text)

    async def ping(self, payload: bytes | None = None, *, seconds: float = HANG_SECONDS) -> None:
        """Ping, and wait for the pong."""
        with trio.fail_after(seconds):
            await (await self._connection.ping(payload)).wait()

    async def collect(self) -> None:
        """Take what comes until the connection is closed."""
        try:
            while True:
                delivery = parse_delivery(await self._connection.recv())
                async with self._arrived:
                    self.received.append(delivery)
                    self._arrived.notify_all()
        except ConnectionClosed:
            pass
        except WrongFrame as error:
            self._wrong = error
        async with self._arrived:
            self._closed = closed_as(self._connection)
            self._arrived.notify_all()

    def _raise_wrong(self) -> None:
        if self._wrong is not None:
            raise self._wrong


def closed_as(connection: ClientConnection) -> Closed:
    """Return how a connection was closed."""
    return Closed(connection.close_code or 1006, connection.close_reason or "")


@asynccontextmanager
async def open_chat(url: str, username: str, *, path: str | None = None) -> AsyncIterator[ChatClient]:
    """Connect as a user while the block runs; the server has accepted when it begins.

    Args:
        url: the server, `http://host:port`.
        username: who.
        path: another one than that of the user, percent-encoded.

    Raises:
        websockets.exceptions.InvalidStatus: the server refused; `refusal` is for tests that want that.
        WrongFrame: at the end of the block, where a frame came that is no delivery.
    """
    address = "ws" + url.removeprefix("http") + (path or receive_path(username))
    async with connect(address, open_timeout=HANG_SECONDS, ping_interval=None, proxy=None) as connection:
        client = ChatClient(connection)
        connection.nursery.start_soon(client.collect)
        yield client
    client._raise_wrong()


async def refusal(url: str, path: str, *, headers: Mapping[str, str] | None = None) -> Answer:
    """Ask for a WebSocket and return how it was refused, as an HTTP response.

    Args:
        url: the server, `http://host:port`.
        path: percent-encoded, with its query.
        headers: further ones of the handshake.
    """
    async with open_raw(url) as client:
        response = await client.handshake(path, headers=headers)
    assert response.status != 101, f"{path} was accepted"
    return response
