"""A client of server-sent events that follows the HTML standard (section 9.2.6), deliberately without our code."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import h11
import trio

from .deadlines import HANG_SECONDS
from .raw_client import connected


@dataclass(frozen=True, slots=True)
class Event:
    """An event as an `EventSource` passes it to its page.

    Attributes:
        name: `message` where the event has none.
        data: its lines, joined.
        last_id: as it is after this event.
    """

    name: str
    data: str
    last_id: str

    @property
    def said(self) -> dict[str, Any]:
        """The JSON of its data."""
        found: dict[str, Any] = json.loads(self.data)
        return found

    @property
    def meta(self) -> dict[str, Any]:
        """Its `meta`."""
        found: dict[str, Any] = self.said["meta"]
        return found


@dataclass
class EventsParser:
    """Turns the bytes of a stream into events.

    Attributes:
        retry_ms: as it was said last.
        comments: how many there were.
    """

    retry_ms: int | None = None
    comments: int = 0
    _rest: str = ""
    _name: str = ""
    _data: list[str] = field(default_factory=list)
    _id: str = ""

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that are whole by now."""
        found: list[Event] = []
        self._rest += data.decode()
        # A carriage return ends a line, too; one that stood in a message's text would be read as such here.
        *lines, self._rest = self._rest.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines:
            if line:
                self._take(line)
                continue
            if self._data:
                found.append(Event(self._name or "message", "\n".join(self._data), self._id))
            self._name, self._data = "", []
        return found

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                self.comments += 1
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id":
                self._id = value
            case "retry":
                self.retry_ms = int(value)
            case _:
                raise AssertionError(f"a field that no event has: {line[:100]!r}")


class EventsClient:
    """One stream, read as it is asked for.

    Attributes:
        status: of the response.
        headers: of it, names in lower case.
        events: those that have been read.
        parser: with what is left between them.
        body: of a response that is no stream.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.events: list[Event] = []
        self.parser = EventsParser()
        self.body = b""
        self.ended = False
        self._stream = stream
        self._wire = h11.Connection(h11.CLIENT)
        self._returned = 0

    @property
    def last_id(self) -> str:
        """The id with which a client resumes after the returned events."""
        return self.events[self._returned - 1].last_id if self._returned else ""

    async def begin(self, request: h11.Request, body: bytes = b"") -> None:
        """Ask, and read the head of the answer."""
        said: list[h11.Event] = [request, h11.Data(data=body), h11.EndOfMessage()]
        await self._stream.send_all(b"".join(self._wire.send(event) or b"" for event in said))
        await self._read_until(lambda: self.status != 0)

    async def next(self, *, seconds: float = HANG_SECONDS) -> Event:
        """Return the next event.

        Raises:
            AssertionError: the stream has ended.
            trio.TooSlowError: none came in time.
        """
        with trio.fail_after(seconds):
            await self._read_until(lambda: len(self.events) > self._returned)
        if len(self.events) <= self._returned:
            raise AssertionError(f"the stream ended after {self.events[-3:]}")
        self._returned += 1
        return self.events[self._returned - 1]

    async def take(self, count: int, *, seconds: float = HANG_SECONDS) -> list[Event]:
        """Return the next events."""
        found: list[Event] = []
        with trio.fail_after(seconds):
            while len(found) < count:
                found.append(await self.next(seconds=seconds))
        return found

    async def message(self, *, seconds: float = HANG_SECONDS) -> Event:
        """Return the next event that is a message."""
        while (event := await self.next(seconds=seconds)).name != "message":
            pass
        return event

    async def texts(self, count: int, *, seconds: float = HANG_SECONDS) -> list[str]:
        """Return the texts of the next messages."""
        found: list[str] = []
        with trio.fail_after(seconds):
            while len(found) < count:
                found.append((await self.message(seconds=seconds)).said["text"])
        return found

    async def read_to_end(self, *, seconds: float = HANG_SECONDS) -> list[Event]:
        """Return the events until the server ends the stream."""
        with trio.fail_after(seconds):
            await self._read_until(lambda: False)
        left, self._returned = self.events[self._returned :], len(self.events)
        return left

    async def _read_until(self, true: Callable[[], bool]) -> None:
        while not self.ended and not true():
            event = self._wire.next_event()
            if event is h11.NEED_DATA:
                self._wire.receive_data(await self._stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                self.status = event.status_code
                self.headers = {name.decode().lower(): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                if self.headers.get("content-type", "").startswith("text/event-stream"):
                    self.events += self.parser.feed(bytes(event.data))
                else:
                    self.body += event.data
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                self.ended = True


@asynccontextmanager
async def open_events(
    url: str,
    username: str,
    query: str = "",
    *,
    path: str = "",
    headers: Mapping[str, str] | None = None,
    body: object = None,
    receive_buffer: int | None = None,
) -> AsyncIterator[EventsClient]:
    """Ask for a user's stream; yields once the head of the answer is there.

    Args:
        url: the server.
        username: whose messages.
        query: parameters, encoded.
        path: below which the service is.
        headers: further ones.
        body: where it is not None, it is sent as JSON, by POST.
        receive_buffer: bytes that the kernel takes for a client that does not read.
    """
    parts = urlsplit(url)
    async with await connected(url, receive_buffer=receive_buffer) as stream:
        client = EventsClient(stream)
        target = f"{path}/receive-message/client/{quote(username, safe='')}/events" + (f"?{query}" if query else "")
        named = {"host": parts.netloc, "accept": "text/event-stream", **(headers or {})}
        said = b""
        if body is not None:
            said = json.dumps(body).encode()
            named |= {"content-type": "application/json", "content-length": str(len(said))}
        method = "GET" if body is None else "POST"
        with trio.fail_after(HANG_SECONDS):
            await client.begin(h11.Request(method=method, target=target, headers=list(named.items())), said)
        yield client
