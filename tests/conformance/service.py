"""A kafka-chat.v1 service on real sockets, whose every byte a test decides."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote

import trio
from wsproto import WSConnection
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Pong, RejectConnection, RejectData, Request, TextMessage
from wsproto.frame_protocol import CloseReason

from kafka_chat.chat.resume_cursor import MessageIds, ResumeCursor, absent_entry, cluster_mark, head_of_cursor, parse, text_of, topic_entry

PROTOCOL = "kafka-chat.v1"
VISIT_SECONDS = 60.0  # a client pauses 30 s at most
_PATH = "/receive-message/client/"

Frame = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat and its topic.

    Attributes:
        name: of the chat.
        identity: the topic's identity; a recreated topic has another.
    """

    name: str
    identity: str = "the first"

    @property
    def topic(self) -> str:
        """The topic's name."""
        return f"kafka.chat.{self.name}"

    def id_of(self, offset: int, *, partition: int = 0) -> str:
        """Return the id of a message."""
        return MessageIds(self.topic, self.identity, partition).of(offset).decode()

    def message(self, offset: int, *, partition: int = 0, **fields: object) -> Frame:
        """Return the data frame of the message at `offset`; `fields` replace those of it, or of its `meta`."""
        meta = {"partition": partition, "offset": offset, "time": 1764064800000 + offset, "key": None, "headers": []}
        frame: Frame = {"sender": "ann", "text": f"{self.name} {partition} {offset}", "tag": None, "chat": self.name}
        frame["meta"] = {"id": self.id_of(offset, partition=partition), **meta}
        for name, value in fields.items():
            (frame if name in frame else frame["meta"])[name] = value
        return frame

    def skipped(self, offset: int, *, partition: int = 0, **fields: object) -> Frame:
        """Return the control frame in the place of the message at `offset`, which is too large."""
        about = {"id": self.id_of(offset, partition=partition), "partition": partition, "offset": offset, "time": 1764064800000 + offset}
        return {"meta": {"type": "skipped", "chat": self.name, **about, "cause": "too_large", **fields}}

    def gap(self, first_lost: int, first_left: int, cause: str, *, partition: int = 0) -> Frame:
        """Return the control frame that says what is lost."""
        about = {"chat": self.name, "partition": partition, "first_lost": first_lost, "first_left": first_left, "cause": cause}
        return {"meta": {"type": "gap", **about}}


def cursor_of(nexts: Mapping[Chat, Sequence[int | None] | None], *, subscriptions: int = 0) -> str:
    """Return a cursor.

    Args:
        nexts: the next offsets of each chat's partitions; None where it has no topic.
        subscriptions: the next offset of the subscriptions topic.
    """
    entries = [absent_entry(chat.topic) if at is None else topic_entry(chat.topic, chat.identity, at) for chat, at in nexts.items()]
    return text_of(head_of_cursor(cluster_mark("conformance"), subscriptions) + b"".join(entries))


class Visit:
    """One connection of the client under test, from its request on.

    Attributes:
        username: as the path names it.
        query: of the address.
        protocols: the subprotocols that are offered.
        token: in the header, or as a subprotocol; None where there is none.
    """

    def __init__(self, stream: trio.SocketStream, connection: WSConnection, request: Request) -> None:
        path, _, query = request.target.partition("?")
        assert path.startswith(_PATH), path
        self.username = unquote(path.removeprefix(_PATH), errors="strict")
        self.query = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
        self.protocols = list(request.subprotocols)
        bearers = [value.decode() for name, value in request.extra_headers if name.lower() == b"authorization"]
        shown = [*(value.removeprefix("Bearer ") for value in bearers), *_bearers(self.protocols)]
        assert len(shown) <= 1, "a token is shown twice"
        self.token = shown[0] if shown else None
        self._stream = stream
        self._connection = connection
        self._accepted = trio.Event()
        self._sending = trio.StrictFIFOLock()
        self._silent = trio.CancelScope()
        self._ponged = trio.Event()
        self._said, self._frames = trio.open_memory_channel[Frame](1000)

    @property
    def knows_v1(self) -> bool:
        """It asks for kafka-chat.v1, by the subprotocol or by `meta=1`."""
        return PROTOCOL in self.protocols or self.query.get("meta") == ["1"]

    @property
    def resumed(self) -> ResumeCursor | None:
        """What the cursors in the address stand for, all together; None where there are none."""
        cursors = self.query.get("cursor")
        return None if cursors is None else parse(".".join(cursors))

    async def accept(self, *, v1: bool = True) -> None:
        """Answer the handshake; without `v1` as a service that does not know the protocol."""
        protocol = PROTOCOL if v1 and PROTOCOL in self.protocols else None
        await self._send(AcceptConnection(subprotocol=protocol))
        self._accepted.set()

    async def refuse(self, status: int, error: str, **headers: str) -> None:
        """Answer the handshake with a status and the body that errors have."""
        body = json.dumps({"error": error, "field": None}).encode()
        fields = {"content-type": "application/json", "content-length": str(len(body))}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = [(name.encode(), value.encode()) for name, value in fields.items()]
        await self._send(RejectConnection(status_code=status, headers=sent, has_body=True))
        await self._send(RejectData(data=body))
        await self._stream.send_eof()

    async def hello(
        self,
        cursor: str | None,
        *,
        resume: str = "none",
        chats: Sequence[str] = ("room1",),
        most_heartbeat_seconds: int = 600,
        **more: object,
    ) -> None:
        """Send the first frame.

        Args:
            cursor: as the frame has it.
            resume: likewise.
            chats: likewise.
            most_heartbeat_seconds: whatever the client asks for; with 1, its watch for silence takes no longer than it must.
            more: further fields of the frame.
        """
        asked = self.query.get("heartbeat")
        limits = {
            "message_bytes": 1_000_000,
            "client_message_bytes": 65_536,
            "chats_per_user": 200,
            "heartbeat_seconds": None if asked is None else min(max(int(asked[0]), 10), most_heartbeat_seconds),
        }
        about = {"session": "1", "user": self.username, "chats": list(chats), "resume": resume, "cursor": cursor, "limits": limits}
        await self.control("hello", **about, **more)

    async def greet(self, cursor: str, *, resume: str = "none", most_heartbeat_seconds: int = 600) -> None:
        """Accept, and send `hello` and `live`: all that was there has been delivered."""
        await self.accept()
        await self.hello(cursor, resume=resume, most_heartbeat_seconds=most_heartbeat_seconds)
        await self.control("live", cursor=cursor)

    async def control(self, kind: str, **fields: object) -> None:
        """Send a control frame."""
        await self.send({"meta": {"type": kind, **fields}})

    async def send(self, *frames: Frame) -> None:
        """Send frames."""
        for frame in frames:
            await self._send(TextMessage(data=json.dumps(frame, ensure_ascii=False)))

    async def ping(self) -> None:
        """Send a ping frame."""
        await self._send(Ping(payload=b"still there?"))

    async def ponged(self, *, seconds: float = VISIT_SECONDS) -> None:
        """Wait until the client has answered a ping frame."""
        with trio.fail_after(seconds):
            await self._ponged.wait()

    async def try_to_send(self, *frames: Frame) -> None:
        """Send frames to a client that may go away meanwhile."""
        for frame in frames:
            await self._answer(TextMessage(data=json.dumps(frame)))

    async def next_frame(self, *, seconds: float = VISIT_SECONDS) -> Frame:
        """Return what the client says next, its pings left out.

        Raises:
            trio.EndOfChannel: it says nothing any more.
        """
        with trio.fail_after(seconds):
            return await self._frames.receive()

    def said_nothing(self) -> bool:
        """Return whether there is nothing that `next_frame` has not returned."""
        return self._frames.statistics().current_buffer_used == 0

    async def ended(self, *, seconds: float = VISIT_SECONDS) -> None:
        """Wait until the client is gone, and has said nothing before."""
        with trio.fail_after(seconds):
            async for frame in self._frames:
                raise AssertionError(f"the client said {frame}")

    async def close(self, code: int, reason: str = "") -> None:
        """Send a close frame, and wait for the client's."""
        await self._send(CloseConnection(code=code, reason=reason))
        with trio.fail_after(VISIT_SECONDS):
            async for _ in self._frames:
                pass

    async def cut(self) -> None:
        """End the connection by a FIN, without a close frame."""
        await self._stream.send_eof()

    async def cut_in_a_frame(self) -> None:
        """Send the first bytes of a message, then end the connection."""
        data = self._connection.send(TextMessage(data=json.dumps(Chat("room1").message(999))))
        async with self._sending:
            await self._stream.send_all(data[:40])
        await self._stream.send_eof()

    async def reset(self) -> None:
        """End the connection by an RST."""
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._silent.cancel()
        await self._stream.aclose()

    def fall_silent(self) -> None:
        """Read, answer and say nothing any more, as where the network has gone and told nobody."""
        self._silent.cancel()

    async def _send(self, event: Event) -> None:
        async with self._sending:
            await self._stream.send_all(self._connection.send(event))

    async def read(self) -> None:
        """Take what the client says until it is gone, and answer what has to be; run by the service."""
        with self._said:
            with self._silent:
                await self._accepted.wait()
                text = ""
                while data := await self._receive():
                    self._connection.receive_data(data)
                    for event in self._connection.events():
                        if isinstance(event, TextMessage):
                            text += event.data
                            if event.message_finished:
                                await self._take(json.loads(text))
                                text = ""
                        elif isinstance(event, Ping):
                            await self._answer(event.response())
                        elif isinstance(event, Pong):
                            self._ponged.set()
                        elif isinstance(event, CloseConnection):
                            if event.code != CloseReason.ABNORMAL_CLOSURE and self._connection.state.name == "REMOTE_CLOSING":
                                await self._answer(event.response())
                            return
            await trio.sleep_forever() if self._silent.cancelled_caught else None

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""  # the client let go by an RST, or we did

    async def _answer(self, event: Event) -> None:
        try:
            await self._send(event)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # it is gone; reading says so, too

    async def _take(self, frame: Frame) -> None:
        if frame.get("op") == "ping":
            about = {"re": frame["re"]} if "re" in frame else {}
            await self._answer(TextMessage(data=json.dumps({"meta": {"type": "pong", **about}})))
        else:
            self._said.send_nowait(frame)


class FakeService:
    """Where the client under test connects.

    Attributes:
        url: `http://127.0.0.1:port`.
    """

    def __init__(self, url: str, visits: trio.MemoryReceiveChannel[Visit]) -> None:
        self.url = url
        self._visits = visits

    async def visit(self, *, seconds: float = VISIT_SECONDS) -> Visit:
        """Return the client's next connection."""
        with trio.fail_after(seconds):
            return await self._visits.receive()

    def nobody_came(self) -> bool:
        """Return whether there is no connection that `visit` has not returned."""
        return self._visits.statistics().current_buffer_used == 0


@asynccontextmanager
async def open_fake_service() -> AsyncIterator[FakeService]:
    """Listen on loopback while the block runs."""
    came, visits = trio.open_memory_channel[Visit](100)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            connection = WSConnection(ConnectionType.SERVER)
            try:
                request = await _request(stream, connection)
            except trio.BrokenResourceError:
                return  # it let go before it had asked
            if request is not None:
                visit = Visit(stream, connection, request)
                came.send_nowait(visit)
                await visit.read()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield FakeService(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", visits)
        nursery.cancel_scope.cancel()


def _bearers(protocols: Sequence[str]) -> list[str]:
    return [name.removeprefix("bearer.") for name in protocols if name.startswith("bearer.")]


async def _request(stream: trio.SocketStream, connection: WSConnection) -> Request | None:
    while data := bytes(await stream.receive_some()):
        connection.receive_data(data)
        requests: Iterable[Event] = connection.events()
        for event in requests:
            assert isinstance(event, Request), event
            return event
    return None
