"""A kafka-chat.v1 client with the library `websockets`, which shares no code with ours; it keeps a cursor."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import trio
import websockets.exceptions
import websockets.trio.client
from websockets.typing import Subprotocol

from .clients import Closed, closed_as, receive_path
from .deadlines import HANG_SECONDS

Frame = dict[str, Any]


class V1Client:
    """Connected once; `cursor` is what the next one begins after.

    Attributes:
        frames: everything so far, in order.
    """

    def __init__(self, connection: websockets.trio.client.ClientConnection, cursor: str) -> None:
        self.frames: list[Frame] = []
        self._connection = connection
        self._cursor = cursor
        self._ids: dict[tuple[str, int], str] = {}
        self._at = 0

    @property
    def subprotocol(self) -> str | None:
        """What the server has chosen."""
        return self._connection.subprotocol

    @property
    def cursor(self) -> str:
        """The cursor after everything received."""
        return ".".join([self._cursor, *self._ids.values()]) if self._cursor else ".".join(self._ids.values())

    async def next(self, *, seconds: float = HANG_SECONDS) -> Frame:
        """Return the next frame."""
        with trio.fail_after(seconds):
            frame: Frame = json.loads(await self._connection.recv())
        self.frames.append(frame)
        meta = frame["meta"]
        if "type" not in meta or meta["type"] == "skipped":
            self._ids[frame.get("chat") or meta["chat"], meta["partition"]] = meta["id"]
        elif meta.get("cursor"):
            self._cursor, self._ids = meta["cursor"], {}
        return frame

    async def control(self, kind: str, *, seconds: float = HANG_SECONDS) -> Frame:
        """Return `meta` of the next control frame of a type; what comes before it is in `frames`."""
        with trio.fail_after(seconds):
            while (frame := await self.next(seconds=seconds))["meta"].get("type") != kind:
                pass
        meta: Frame = frame["meta"]
        return meta

    async def texts(self, count: int, *, seconds: float = HANG_SECONDS) -> list[str]:
        """Return the texts of the next `count` messages."""
        found: list[str] = []
        with trio.fail_after(seconds):
            while len(found) < count:
                frame = await self.next(seconds=seconds)
                if "text" in frame:
                    found.append(frame["text"])
        return found

    async def op(self, **op: Any) -> Frame:
        """Ask for something, and return `meta` of what came next."""
        await self.say(json.dumps(op))
        meta: Frame = (await self.next())["meta"]
        return meta

    async def say(self, text: str | bytes) -> None:
        """Send a message."""
        await self._connection.send(text)

    async def closed(self, *, seconds: float = HANG_SECONDS) -> Closed:
        """Take what comes until the connection is closed, and return how."""
        try:
            while True:
                await self.next(seconds=seconds)
        except websockets.exceptions.ConnectionClosed:
            return closed_as(self._connection)


@asynccontextmanager
async def open_v1(
    url: str, username: str, *parameters: tuple[str, str], cursor: str = "", subprotocols: Sequence[str] = ("kafka-chat.v1",)
) -> AsyncIterator[V1Client]:
    """Connect as a user while the block runs.

    Args:
        url: the server, `http://host:port`.
        username: who.
        parameters: name and value, of the address.
        cursor: where to begin; "" for nowhere.
        subprotocols: offered.
    """
    query = urlencode([*parameters, *([("cursor", cursor)] if cursor else [])])
    address = f"ws{url.removeprefix('http')}{receive_path(username)}?{query}"
    offered = [Subprotocol(name) for name in subprotocols] or None
    async with websockets.trio.client.connect(address, subprotocols=offered, compression=None, max_size=64 << 20) as connection:
        yield V1Client(connection, cursor)
