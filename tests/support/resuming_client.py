"""A client of kafka-chat.v1 that comes back with its cursor, made for being cut off; hundreds fit into one process.

It shares no code with the service or with the clients that we ship: cursors are put together as docs/protocol.md says, and
frames are read as they stand on the wire.
"""

from __future__ import annotations

import base64
import json
import random
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from urllib.parse import quote, urlencode, urlsplit
from zlib import crc32

import msgspec
import trio

from .checker import Journal, Lane, Recorded
from .deadlines import HANG_SECONDS
from .raw_client import ACCEPT, BrokenStream, client_frame, handshake_request

SUBPROTOCOL = "kafka-chat.v1"
ADDRESS_LENGTH = 4096  # a longer cursor goes in the first frame
ID_PREFIX = 28  # characters of an id that name its topic: 21 bytes
AWAY_SECONDS = 0.05  # before trying again where nobody listens
READ_BYTES = 65536
PACED_BYTES = 2048  # a client that is slow on purpose reads so much at a time: some seven messages, so its rate is even
QUIET_SECONDS = 60.0  # after so long without a message none comes any more: pauses and page reads take seconds on a busy machine


class Cut(StrEnum):
    """How a connection ends."""

    CLOSE = "close"  # with a close frame
    FIN = "FIN"
    RESET = "RST"
    FREEZE = "freeze"  # nothing is read for a while, then RST
    BLACK_HOLE = "black hole"  # nothing is read or said any more, and the connection stays


class Meta(msgspec.Struct):
    """What stands in `meta`; fields of all types of frames together."""

    type: str | None = None
    id: str = ""
    partition: int = -1
    offset: int = -1
    time: int | None = None
    key: object = None
    headers: list[list[object]] = []
    cursor: str | None = None
    chat: str = ""
    chats: list[str] = []
    resume: str = ""
    first_lost: int = -1
    first_left: int = -1
    cause: str = ""
    after_ms: int = 0
    re: object = None
    code: int = 0
    message: str = ""
    field: str | None = None
    positions: dict[str, int] = {}
    exists: bool = False


class FrameV1(msgspec.Struct):
    """A text frame of the service."""

    meta: Meta
    sender: str = ""
    text: str = ""
    tag: str | None = None
    chat: str = ""


CHECK_BYTES = 2  # of CRC-32, at the end of each part of a cursor
MOST_EPOCHS = 1_000  # no test has so many elections

_decode = msgspec.json.Decoder(FrameV1).decode


class Refused(Exception):
    """The service does not take us in now.

    Attributes:
        code: of HTTP or of the close frame.
        retry_after: seconds, where it says so.
    """

    def __init__(self, code: int, reason: str, retry_after: float | None) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.retry_after = retry_after


@dataclass
class Visit:
    """One connection, from its beginning to its end.

    Attributes:
        began: when connecting began; times are trio's, in seconds.
        accepted: when the handshake was answered.
        said_hello: when `hello` came.
        first_message: when the first message came.
        live: when `live` came.
        resume: as `hello` has it.
        hello: the frame.
        controls: the control frames, `hello` included.
        messages: how many came.
        before_live: how many of them before `live`.
        close_code: of the service's close frame; 1006 where the connection ended without; None while it is open.
        close_reason: of that frame.
    """

    began: float
    accepted: float = 0.0
    said_hello: float | None = None
    first_message: float | None = None
    live: float | None = None
    hello: Meta | None = None
    controls: list[Meta] = field(default_factory=list)
    messages: int = 0
    before_live: int = 0
    close_code: int | None = None
    close_reason: str = ""

    @property
    def resume(self) -> str | None:
        return None if self.hello is None else self.hello.resume


class ResumingClient:
    """Keeps a cursor over all its connections, of which one is open at a time, and writes a journal.

    Attributes:
        user: whose messages it gets.
        journal: what it recorded.
        visits: its connections; the last may be open.
        cursor: that of the last control frame that had one.
        left_open: connections that it went away from without ending them.
        keep: whether to keep every message whole, in `frames`.
        frames: these.
        pace: messages a second, at most: it is slow on purpose; None: it takes what comes.
    """

    def __init__(
        self,
        journal: Journal,
        user: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        identities: bool = True,
        receive_buffer: int | None = None,
        pace: float | None = None,
    ) -> None:
        """Make one that is not connected.

        Args:
            journal: its own.
            user: a username.
            query: parameters beside the cursor.
            identities: whether topics have them, which the embedded broker's have not.
            receive_buffer: SO_RCVBUF, bytes. One that is below loopback's MSS (32,768) makes a client slow by how seldom its process comes
                to it, 4 KiB each time: to be slow at a known rate there is `pace`.
            pace: see there.
        """
        self.user = user
        self.journal = journal
        self.query = list(query)
        self.visits: list[Visit] = []
        self.cursor: str | None = None
        self.left_open: list[trio.SocketStream] = []
        self.frames: list[FrameV1] = []
        self.keep = False
        self.pace = pace
        self._paced_until = 0.0  # not to read before; trio's time
        self._identities = identities
        self._receive_buffer = receive_buffer
        self._ids: dict[tuple[str, int], str] = {}
        self._recorded: dict[tuple[str, int], Recorded] = {}
        self._stream: trio.SocketStream | None = None
        self._rest = b""
        self._visit = Visit(began=0.0)
        self._pings: list[bytes] = []

    @property
    def visit(self) -> Visit:
        """The last connection."""
        return self.visits[-1]

    @property
    def connected(self) -> bool:
        """Whether there is a connection that has not ended, as far as was read."""
        return self._stream is not None

    def next_offset(self, topic: str, lane: Lane) -> int | None:
        """Return what `place()` says of a partition; None where it says nothing.

        Args:
            topic: its name.
            lane: its number, and the identity that is meant.
        """
        mark = sha256(topic.encode()).digest()[:4]
        for (prefix, partition), text in self._ids.items():
            data = _bytes_of(text)
            if data[1:5] == mark and partition == lane.partition and (not lane.topic or _text_of(data[5:21]) == lane.topic):
                return list(_varints(data[len(_bytes_of(prefix)) : -CHECK_BYTES]))[1] + 1
        told = read_cursor(self.cursor)[1].get(mark) if self.cursor else None
        if told is None or (lane.topic and not told.is_of(lane.topic)) or lane.partition >= len(told.offsets):
            return None
        return told.offsets[lane.partition]

    def place(self) -> str | None:
        """Return the cursor of all that came so far; None where nothing tells."""
        parts = ([self.cursor] if self.cursor else []) + list(self._ids.values())
        return ".".join(parts) or None

    def begin_at(self, cursor: str) -> None:
        """Take a cursor that somebody else gave for its own."""
        self.cursor = cursor
        self._ids.clear()

    def take(self, shown: object) -> None:
        """Record a message that came by another way: what its frame would have been."""
        self._record(msgspec.convert(shown, FrameV1))

    # --- coming

    async def come(self, url: str, *, in_frame: bool = False, by_query: bool = False, cursor: str | None = None) -> Visit:
        """Connect, with the cursor if there is one, and return once the handshake is answered.

        Args:
            url: of which host and port count.
            in_frame: send the cursor as the first frame; one that is too long for an address goes so anyhow.
            by_query: ask for v1 by `meta=1`.
            cursor: another than `place()`.

        Raises:
            Refused: by an HTTP status; a close frame is found while reading.
            OSError: nobody is there.
        """
        cursor = self.place() if cursor is None else cursor
        in_frame = cursor is not None and (in_frame or len(cursor) > ADDRESS_LENGTH)
        parameters = [*self.query, *([("meta", "1")] if by_query else [])]
        if cursor is not None:
            parameters.append(("cursor", "frame" if in_frame else cursor))
        path = "/receive-message/client/" + quote(self.user, safe="") + ("?" + urlencode(parameters) if parameters else "")
        visit = Visit(began=trio.current_time())
        stream = await self._connected(url)
        try:
            with trio.fail_after(HANG_SECONDS):
                headers: Mapping[str, str] = {} if by_query else {"Sec-WebSocket-Protocol": SUBPROTOCOL}
                await stream.send_all(handshake_request(path, headers=headers))
                rest = await self._answered(stream, by_query=by_query)
                visit.accepted = trio.current_time()
                if in_frame:
                    await stream.send_all(client_frame(1, json.dumps({"op": "start", "cursor": cursor}).encode()))
        except BaseException:
            stream.socket.close()
            raise
        self._stream, self._visit, self._rest = stream, visit, b""
        self.visits.append(visit)
        self._feed(rest)
        self._paced(visit.messages)
        return visit

    async def come_soon(
        self, url: Callable[[], str], *, rng: random.Random, seconds: float = 60.0, in_frame: bool = False, by_query: bool = False
    ) -> Visit:
        """Connect, and try again for as long as nobody is there or we are told to come later.

        Args:
            url: asked for each try.
            rng: spreads the tries.
            seconds: for all of them.
            in_frame: as `come` has it.
            by_query: likewise.
        """
        with trio.fail_after(seconds):
            while True:
                try:
                    return await self.come(url(), in_frame=in_frame, by_query=by_query)
                except Refused as refused:
                    if refused.code != 503 or refused.retry_after is None:
                        raise AssertionError(f"refused without a hint when to come again: {refused}") from refused
                    await trio.sleep(refused.retry_after * rng.uniform(0.5, 1.5))
                except (OSError, trio.BrokenResourceError):
                    await trio.sleep(AWAY_SECONDS * rng.uniform(1, 3))

    # --- staying

    async def read(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Read until the connection has ended, or something is so; return whether it is so.

        Args:
            until: asked after each read.
        """
        while not until():
            if self._stream is None:
                return False
            if self.pace is not None:
                await trio.sleep_until(self._paced_until)
            before = self._visit.messages
            try:
                data = await self._stream.receive_some(self._read_bytes)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                self._ended()
                return until()
            self._feed(data)
            self._paced(self._visit.messages - before)
            while self._pings and self._stream is not None:
                await self._say(10, self._pings.pop(0))
        return True

    async def read_until(self, until: Callable[[], bool], *, seconds: float = HANG_SECONDS) -> None:
        """Read until something is so, within a deadline; that the connection ends before is an error."""
        with trio.move_on_after(seconds):
            if await self.read(until):
                return
            raise AssertionError(f"the connection ended ({self._visit.close_code} {self._visit.close_reason}) before that was so")
        raise trio.TooSlowError(
            f"that was not so within {seconds:g} s; {self._visit.messages} messages came, the last controls: {self._visit.controls[-3:]}"
        )

    async def read_rest(self, until: Callable[[], bool], *, quiet_seconds: float = QUIET_SECONDS) -> bool:
        """Read until something is so, however long that takes: for as long as messages come.

        Where this is cancelled, the journal says that what is missing is late; where it ends by itself, that is lost.

        Args:
            until: asked after each read.
            quiet_seconds: after so long without a message, none comes any more.

        Returns:
            Whether it is so. False: the connection has ended, or nothing comes.
        """
        self.journal.stopped_early = True
        so, came = False, self._visit.messages
        with trio.move_on_after(quiet_seconds) as quiet:

            def is_so() -> bool:
                nonlocal came
                if self._visit.messages > came:
                    came, quiet.deadline = self._visit.messages, trio.current_time() + quiet_seconds
                return until()

            so = await self.read(is_so)
        self.journal.stopped_early = False
        return so

    async def say(self, op: Mapping[str, object]) -> None:
        """Send an op, and do not wait for its answer."""
        await self._say(1, json.dumps(op).encode())

    async def ask(self, *, seconds: float = HANG_SECONDS, **op: object) -> Meta:
        """Send an op, read until its answer has come, and return that."""
        mark = f"op{random.getrandbits(48):x}"
        await self.say({**op, "re": mark})
        found: list[Meta] = []

        def answered() -> bool:
            found.extend(control for control in self._visit.controls if control.re == mark)
            return bool(found)

        await self.read_until(answered, seconds=seconds)
        return found[0]

    # --- leaving

    async def cut(self, how: Cut) -> None:
        """End the connection, or leave it as it is and go away."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        match how:
            case Cut.CLOSE | Cut.FIN:
                try:
                    if how is Cut.CLOSE:
                        await stream.send_all(client_frame(8, struct.pack("!H", 1000)))
                    await stream.send_eof()
                except trio.BrokenResourceError:
                    return  # it has ended meanwhile, which is what was to happen
                finally:
                    stream.socket.close()
            case Cut.RESET | Cut.FREEZE:
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stream.socket.close()
            case Cut.BLACK_HOLE:
                self.left_open.append(stream)

    def let_go(self) -> None:
        """Close what was left open."""
        for stream in [*self.left_open, *([self._stream] if self._stream is not None else [])]:
            stream.socket.close()
        self.left_open.clear()
        self._stream = None

    # --- inside

    async def _connected(self, url: str) -> trio.SocketStream:
        parts = urlsplit(url)
        assert parts.hostname is not None
        connection = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if self._receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        try:
            with trio.fail_after(HANG_SECONDS):
                await connection.connect((parts.hostname, parts.port))
        except BaseException:
            connection.close()
            raise
        return trio.SocketStream(connection)

    async def _answered(self, stream: trio.SocketStream, *, by_query: bool) -> bytes:
        """Read the answer to the handshake, and return what came after it."""
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            more = await stream.receive_some(self._read_bytes)
            if not more:
                raise ConnectionResetError(f"the connection ended instead of an answer, after {data!r}")
            data += more
        lines = data[:end].decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if status != 101:
            hint = headers.get("retry-after")
            raise Refused(status, data[end + 4 :].decode(errors="replace"), None if hint is None else float(hint))
        named = headers.get("sec-websocket-protocol")
        if headers.get("sec-websocket-accept") != ACCEPT or named != (None if by_query else SUBPROTOCOL):
            raise BrokenStream(f"the handshake was answered with {headers}")
        return data[end + 4 :]

    @property
    def _read_bytes(self) -> int:
        return READ_BYTES if self.pace is None else PACED_BYTES

    def _paced(self, messages: int) -> None:
        """Put off the next read for as long as so many messages take at our pace, over all connections."""
        if self.pace is not None:
            self._paced_until = max(self._paced_until, trio.current_time()) + messages / self.pace

    async def _say(self, opcode: int, payload: bytes) -> None:
        if self._stream is not None:
            try:
                await self._stream.send_all(client_frame(opcode, payload))
            except trio.BrokenResourceError:
                self._ended()

    def _ended(self) -> None:
        if self._visit.close_code is None:
            self._visit.close_code = 1006
        if self._stream is not None:
            self._stream.socket.close()
            self._stream = None

    def _feed(self, data: bytes) -> None:
        """Take every whole frame of what was read so far."""
        buffer = self._rest + data if self._rest else data
        at, size = 0, len(buffer)
        while size - at >= 2:
            first, length, head = buffer[at], buffer[at + 1], 2
            if length > 125:
                head = 4 if length == 126 else 10
                if length > 127:
                    raise BrokenStream(f"the server sent a masked frame: {buffer[at : at + 40]!r}")
                if size - at < head:
                    break
                length = int.from_bytes(buffer[at + 2 : at + head])
            if size - at < head + length:
                break
            payload = buffer[at + head : at + head + length]
            at += head + length
            if first == 0x81:
                self._text(payload)
            else:
                self._other(first, payload)
        self._rest = buffer[at:]

    def _text(self, payload: bytes) -> None:
        frame = _decode(payload)
        meta = frame.meta
        visit = self._visit
        if meta.type is not None:
            self._control(meta)
            return
        if visit.first_message is None:
            visit.first_message = trio.current_time()
            if visit.hello is None:
                raise BrokenStream("a message came before hello")
        visit.messages += 1
        self._record(frame)
        if self.keep:
            self.frames.append(frame)

    def _record(self, frame: FrameV1) -> None:
        meta = frame.meta
        key = meta.id[:ID_PREFIX], meta.partition
        recorded = self._recorded.get(key)
        if recorded is None:
            recorded = self._recorded[key] = self.journal.recorded[self._lane(frame)]
        recorded.offsets.append(meta.offset)
        recorded.numbers.append(int(frame.text[: frame.text.index(" ")]))
        self._ids[key] = meta.id

    def _control(self, meta: Meta) -> None:
        visit = self._visit
        if (meta.type == "hello") is not (visit.hello is None):
            raise BrokenStream(f"{meta.type} came {'again' if visit.hello else 'before hello'}")
        visit.controls.append(meta)
        if meta.type == "hello":
            visit.hello, visit.said_hello = meta, trio.current_time()
        elif meta.type == "live":
            if visit.live is not None:
                raise BrokenStream("live came again")
            visit.live, visit.before_live = trio.current_time(), visit.messages
        elif meta.type == "gap":
            self.journal.told_gap(meta.chat, meta.partition, meta.first_lost, meta.first_left, meta.cause)
        if meta.cursor is not None:
            self.cursor = meta.cursor
            self._ids.clear()

    def _other(self, first: int, payload: bytes) -> None:
        if first == 0x89:
            self._pings.append(payload)
        elif first == 0x88:
            self._visit.close_code = int.from_bytes(payload[:2]) if payload else 1005
            self._visit.close_reason = payload[2:].decode()
        elif first != 0x8A:
            raise BrokenStream(f"the server sent a frame that begins with {first:#x}: {payload[:40]!r}")

    def _lane(self, frame: FrameV1) -> Lane:
        """Return where a message belongs, and check that its id says the same as its other fields."""
        data = _bytes_of(frame.meta.id)
        partition, offset, epoch = _varints(_checked(data)[21:])
        if (data[0], partition, offset) != (4, frame.meta.partition, frame.meta.offset) or epoch > MOST_EPOCHS:
            raise BrokenStream(f"the id does not say where the message is: {frame}")
        topic = _text_of(data[5:21]) if self._identities else ""
        return Lane(frame.chat, frame.meta.partition, topic)


@dataclass(frozen=True)
class ToldPlace:
    """What a cursor says of one topic: how its id begins, and the next offset of each partition, None where that is not known."""

    identity: bytes
    offsets: list[int | None]

    def is_of(self, topic_id: str) -> bool:
        """Return whether it is of the topic with this id."""
        return _bytes_of(topic_id)[:4] == self.identity


def read_cursor(text: str) -> tuple[int, dict[bytes, ToldPlace]]:
    """Return what a cursor of one part says: the next offset of the subscriptions, and the topics by 4 bytes of the hash of their names.

    The offset is negative where the cursor has none.
    """
    data = _checked(_bytes_of(text))
    assert data[0] == 3, text
    subscriptions, at = _varint(data, 6)
    places: dict[bytes, ToldPlace] = {}
    while at < len(data):
        mark = data[at : at + 4]
        count, at = _varint(data, at + 4)
        identity = data[at : at + 4] if count else b""
        at += len(identity)
        offsets: list[int | None] = []
        for _ in range(count):
            number, at = _varint(data, at)
            _, at = _varint(data, at)
            offsets.append(number - 1 if number else None)
        places[mark] = ToldPlace(identity, offsets)
    return subscriptions - 2, places


@contextmanager
def resuming(clients: Sequence[ResumingClient]) -> Iterator[None]:
    """Let go of all that these clients have open when the block ends."""
    try:
        yield
    finally:
        for client in clients:
            client.let_go()


def _bytes_of(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _checked(part: bytes) -> bytes:
    """Return a part without its checksum, which has to be right."""
    data, said = part[:-CHECK_BYTES], part[-CHECK_BYTES:]
    if said != (crc32(data) & 0xFFFF).to_bytes(CHECK_BYTES, "big"):
        raise BrokenStream(f"the checksum of a part of a cursor is wrong: {part.hex()}")
    return data


def _text_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        number, at = _varint(data, at)
        yield number
