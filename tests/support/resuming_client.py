"""A kafka-chat.v1 client that is disconnected and resumes with its cursor, by docs/protocol.md, deliberately without our code.

Hundreds fit into one process.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import urlencode

import msgspec
import trio

from .checker import Journal, Lane, Recorded
from .clients import receive_path
from .cursor_bytes import read_id
from .deadlines import HANG_SECONDS
from .raw_client import RawClient
from .resuming_visit import Cut, FrameV1, Meta, Refused, Visit, decode
from .wire_frames import BrokenStream, Opcode, StreamEnded, whole_frames

SUBPROTOCOL = "kafka-chat.v1"
ADDRESS_LENGTH = 4096  # a longer cursor goes in the first frame
ID_PREFIX = 28  # characters of an id that name its topic: 21 bytes
AWAY_SECONDS = 0.05  # before trying again where nobody listens
READ_BYTES = 65536
PACED_BYTES = 2048  # a client that is slow on purpose reads so much at a time: some seven messages, so its rate is even
MOST_EPOCHS = 1_000  # more elections than any test has
QUIET_SECONDS = 60.0  # after so long without a message none comes any more: pauses and page reads take seconds on a busy machine


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
        self.left_open: list[RawClient] = []
        self.frames: list[FrameV1] = []
        self.keep = False
        self.pace = pace
        self._paced_until = 0.0  # not to read before; trio's time
        self._identities = identities
        self._receive_buffer = receive_buffer
        self._ids: dict[tuple[str, int], str] = {}
        self._recorded: dict[tuple[str, int], Recorded] = {}
        self._raw: RawClient | None = None
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
        return self._raw is not None

    def place(self) -> str | None:
        """Return the cursor of all that came so far; None where nothing tells."""
        parts = ([self.cursor] if self.cursor else []) + list(self._ids.values())
        return ".".join(parts) or None

    def begin_at(self, cursor: str) -> None:
        """Take another client's cursor."""
        self.cursor = cursor
        self._ids.clear()

    def take(self, shown: object) -> None:
        """Record a message that came in another way, as its frame."""
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
            StreamEnded: somebody was.
        """
        cursor = self.place() if cursor is None else cursor
        in_frame = cursor is not None and (in_frame or len(cursor) > ADDRESS_LENGTH)
        parameters = [*self.query, *([("meta", "1")] if by_query else [])]
        if cursor is not None:
            parameters.append(("cursor", "frame" if in_frame else cursor))
        path = receive_path(self.user) + ("?" + urlencode(parameters) if parameters else "")
        visit = Visit(began=trio.current_time())
        raw = await self._connected(url)
        try:
            with trio.fail_after(HANG_SECONDS):
                await self._handshake(raw, path, by_query=by_query)
                visit.accepted = trio.current_time()
                if in_frame:
                    await raw.send_frame(Opcode.TEXT, json.dumps({"op": "start", "cursor": cursor}).encode())
        except BaseException:
            raw.let_go()
            raise
        self._raw, self._visit, self._rest = raw, visit, b""
        self.visits.append(visit)
        self._feed(raw.unparsed())
        self._paced(visit.messages)
        return visit

    async def come_soon(
        self, url: Callable[[], str], *, rng: random.Random, seconds: float = 60.0, in_frame: bool = False, by_query: bool = False
    ) -> Visit:
        """Connect, and retry for as long as no service answers or it asks to retry later.

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
                except (OSError, StreamEnded, trio.BrokenResourceError):
                    await trio.sleep(AWAY_SECONDS * rng.uniform(1, 3))

    # --- staying

    async def read(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Read until the connection has ended, or something is so; return whether it is so.

        Args:
            until: asked after each read.
        """
        while not until():
            if self._raw is None:
                return False
            if self.pace is not None:
                await trio.sleep_until(self._paced_until)
            before = self._visit.messages
            data = await self._raw.receive(READ_BYTES if self.pace is None else PACED_BYTES)
            if not data:
                self._ended()
                return until()
            self._feed(data)
            self._paced(self._visit.messages - before)
            while self._pings and self._raw is not None:
                await self._say(Opcode.PONG, self._pings.pop(0))
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
        await self._say(Opcode.TEXT, json.dumps(op).encode())

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
        raw, self._raw = self._raw, None
        if raw is None:
            return
        match how:
            case Cut.CLOSE | Cut.FIN:
                try:
                    if how is Cut.CLOSE:
                        await raw.send_frame(Opcode.CLOSE, struct.pack("!H", 1000))
                    await raw.half_close()
                except trio.BrokenResourceError:
                    return  # it has ended meanwhile, which is what was to happen
                finally:
                    raw.let_go()
            case Cut.RESET | Cut.FREEZE:
                raw.reset()
            case Cut.BLACK_HOLE:
                self.left_open.append(raw)

    def let_go(self) -> None:
        """Close the connections that were left open."""
        for raw in [*self.left_open, *([self._raw] if self._raw is not None else [])]:
            raw.let_go()
        self.left_open.clear()
        self._raw = None

    # --- inside

    async def _connected(self, url: str) -> RawClient:
        return await RawClient.connect(url, receive_buffer=self._receive_buffer)

    async def _handshake(self, raw: RawClient, path: str, *, by_query: bool) -> None:
        named = {} if by_query else {"sec-websocket-protocol": SUBPROTOCOL}
        response = await raw.handshake(path, headers=named)
        if response.status != 101:
            hint = response.headers.get("retry-after")
            raise Refused(response.status, response.body.decode(errors="replace"), None if hint is None else float(hint))
        if response.headers.get("sec-websocket-protocol") != named.get("sec-websocket-protocol"):
            raise BrokenStream(f"the handshake was answered with {response.headers}")

    def _paced(self, messages: int) -> None:
        """Delay the next read for as long as `messages` take at our pace, over all connections."""
        if self.pace is not None:
            self._paced_until = max(self._paced_until, trio.current_time()) + messages / self.pace

    async def _say(self, opcode: int, payload: bytes) -> None:
        if self._raw is not None:
            try:
                await self._raw.send_frame(opcode, payload)
            except trio.BrokenResourceError:
                self._ended()

    def _ended(self) -> None:
        if self._visit.close_code is None:
            self._visit.close_code = 1006
        if self._raw is not None:
            self._raw.let_go()
            self._raw = None

    def _feed(self, data: bytes) -> None:
        """Take every whole frame of what was read so far."""
        buffer, at = self._rest + data, 0
        for first, payload, end in whole_frames(buffer):
            at = end
            if first == 0x81:
                self._text(payload)
            else:
                self._other(first, payload)
        self._rest = buffer[at:]

    def _text(self, payload: bytes) -> None:
        frame = decode(payload)
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
        said = read_id(frame.meta.id)
        if (said.partition, said.offset) != (frame.meta.partition, frame.meta.offset) or said.epoch > MOST_EPOCHS:
            raise BrokenStream(f"the id does not say where the message is: {frame}")
        return Lane(frame.chat, frame.meta.partition, said.topic if self._identities else "")


@contextmanager
def resuming(clients: Sequence[ResumingClient]) -> Iterator[None]:
    """Close all that these clients have open when the block ends."""
    try:
        yield
    finally:
        for client in clients:
            client.let_go()
