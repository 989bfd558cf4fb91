"""A part of the clients in a separate process, so that the load generator can use several cores."""

from __future__ import annotations

import multiprocessing
import re
import resource
import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .crowd import Client, Crowd, totals
from .rooms import channel_of, faults, room_of, rooms_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

DOUBLES_SECONDS = 0.7  # wait this long after the last message for duplicates


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The clients of a shard.

    Attributes:
        host: of the server.
        port: of the server.
        first: the first client's number.
        clients: how many.
        user: the prefix of the user names.
        query: the query string of their URLs, with its question mark; "" for none.
        tls: whether they speak TLS.
        centrifugo: whether they speak Centrifugo's protocol.
        topic: the topic that all follow, if there are no rooms.
        rooms: how many there are; 0: none.
        followed: how many rooms each client follows.
    """

    host: str
    port: int
    first: int
    clients: int
    user: str
    query: str
    tls: bool
    centrifugo: bool
    topic: str
    rooms: int
    followed: int

    def channels(self, number: int) -> Sequence[str]:
        """Return the Centrifugo channels that a client subscribes to."""
        if not self.rooms:
            return [channel_of(self.topic)]
        return [channel_of(f"{self.topic}{room}") for room in rooms_of(number, self.followed, self.rooms)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The messages that will be sent.

    Attributes:
        tag: the prefix of the texts.
        messages: how many.
        timed: whether latencies are measured.
        stall: seconds without a delivery after which the round is given up.
    """

    tag: str
    messages: int
    timed: bool
    stall: float


@dataclass(slots=True, kw_only=True)
class Came:
    """What a shard received in a round.

    Attributes:
        came: deliveries.
        first: when the first was read, in seconds of the monotonic clock; 0 if none was.
        last: when the last was read.
        latencies: nanoseconds from before the produce to after the read.
        cpu: CPU seconds of the shard until all were there.
        missing: messages that did not come, over all clients.
        doubles: messages that came again.
        disordered: messages that came after a later one.
        cut: connections that the server has ended.
        frames: data frames.
        reasons: close frames, since the start.
    """

    came: int = 0
    first: float = 0
    last: float = 0
    latencies: array[int] = field(default_factory=lambda: array("q"))
    cpu: float = 0
    missing: int = 0
    doubles: int = 0
    disordered: int = 0
    cut: int = 0
    frames: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class Shard:
    """The load generator's handle of a shard; each method talks to the process.

    Args:
        part: its clients.
    """

    def __init__(self, part: Part) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, part), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, *order: object) -> None:
        """Call a method of `_Serving` in the process: its name and its arguments."""
        self._connection.send(order)

    def answer(self) -> object:
        """Wait for the next answer.

        Raises:
            RuntimeError: the process has ended.
        """
        try:
            return self._connection.recv()
        except EOFError as error:
            raise RuntimeError("a process of the load generator has ended") from error

    def close(self) -> None:
        """End the process, and so its connections."""
        self._connection.close()
        self._process.join(30)


def _serve(connection: Connection, part: Part) -> None:
    serving = _Serving(connection, part)
    while True:
        while not connection.poll():
            serving.crowd.pump(0.02, lambda client, data: None)
        try:
            name, *arguments = connection.recv()
        except EOFError:
            return
        getattr(serving, name)(*arguments)


class _Serving:
    """The side in the process. Each method sends one answer, unless it says otherwise."""

    def __init__(self, connection: Connection, part: Part) -> None:
        self._connection = connection
        self._part = part
        self.crowd = Crowd(
            centrifugo=part.centrifugo, first=part.first, user=part.user, query=part.query, tls=part.tls, channels=part.channels
        )

    def connect(self) -> None:
        """Connect all clients."""
        self.crowd.connect(self._part.host, self._part.port, self._part.clients)
        self._connection.send(None)

    def idle(self, seconds: float) -> None:
        """Answer pings for `seconds`; send how many came."""
        before = self.crowd.pings
        self.crowd.pump_for(seconds)
        self._connection.send(self.crowd.pings - before)

    def feed(self, tag: str, seconds: float) -> None:
        """Send at once that it has begun; later, how many clients have received the tag in each of their rooms, once all have."""
        self._connection.send(None)
        wanted = len(self._part.channels(0))
        of_room = re.compile(tag.encode() + rb"\.(\d{8})\.").findall
        had: dict[int, set[int]] = {}
        fed = 0

        def take(client: Client, data: bytes) -> None:
            nonlocal fed
            if client.fed or tag.encode() not in data:
                return
            # A message's number implies its room; without rooms any message will do.
            seen = had.setdefault(client.number, set())
            seen.update(int(number) % self._part.rooms if self._part.rooms else 0 for number in of_room(data))
            if len(seen) >= wanted:
                client.fed = True
                fed += 1

        start = time.monotonic()
        while fed < self.crowd.open and time.monotonic() - start < seconds:
            self.crowd.pump(0.05, take)
        self._connection.send(fed)

    def wait_for(self, text: str, seconds: float) -> None:
        """Send at once that it has begun; later, when the text was read (ns of the monotonic clock; 0: it did not come)."""
        self._connection.send(None)
        read = 0

        def take(client: Client, data: bytes) -> None:
            nonlocal read
            if not read and text.encode() in data:
                read = time.monotonic_ns()

        end = time.monotonic() + seconds
        while not read and (left := end - time.monotonic()) > 0:
            self.crowd.pump(left, take)
        self._connection.send(read)

    def count(self, told: Round) -> None:
        """Send at once that it has begun; then None, once all is there; then what came, with duplicates."""
        part, crowd = self._part, self.crowd
        find_numbers = re.compile(told.tag.encode() + rb"\.(\d{8})\.").findall
        find_numbers_and_times = re.compile(told.tag.encode() + rb"\.(\d{8})\.(\d{16})\.").findall
        expected = b"".join(b"%08d" % number for number in range(told.messages))
        wanted = self._wanted(told.messages)
        total = sum(map(len, wanted.values())) if part.rooms else told.messages * part.clients
        numbers_of: dict[int, list[int]] = {number: [] for number in wanted}
        result = Came()
        cut_before, crowd.frames = crowd.cut, 0
        complete = 0
        for client in crowd.clients:
            client.begin_round()

        def take(client: Client, data: bytes) -> None:
            nonlocal complete
            if told.timed:
                now = time.monotonic_ns()
                found = find_numbers_and_times(data)
                result.latencies.extend([now - int(sent) for _, sent in found])
                numbers = [number for number, _ in found]
            else:
                numbers = find_numbers(data)
            if not numbers:
                return
            result.last = time.monotonic()
            result.first = result.first or result.last
            result.came += len(numbers)
            if part.rooms:
                numbers_of[client.number] += map(int, numbers)
                return
            had = client.had
            client.take(numbers, expected)
            complete += had < told.messages == client.had

        def all_there() -> bool:
            return result.came >= total if part.rooms else complete >= part.clients

        own = _own_cpu()
        self._connection.send(None)
        start = time.monotonic()
        while not all_there() and crowd.open and time.monotonic() - (result.last or start) < told.stall:
            crowd.pump(0.2, take)
        result.cpu = _own_cpu() - own
        self._connection.send(None)
        crowd.pump_for(DOUBLES_SECONDS, take)
        if part.rooms:
            found = [faults(numbers_of[number], wanted[number], part.rooms) for number in wanted]
            result.missing, result.doubles, result.disordered = (sum(one) for one in zip(*found, strict=True))
        else:
            of_all = totals(crowd.clients, told.messages)
            result.missing, result.doubles, result.disordered = of_all["missing"], of_all["doubles"], of_all["disordered"]
        result.cut, result.frames, result.reasons = crowd.cut - cut_before, crowd.frames, crowd.reasons
        self._connection.send(result)

    def _wanted(self, messages: int) -> dict[int, set[int]]:
        """Return the messages that each client should receive; with rooms only."""
        part = self._part
        by_room: dict[int, list[int]] = {}
        if part.rooms:
            for number in range(messages):
                by_room.setdefault(room_of(number, part.rooms), []).append(number)
        numbers = range(part.first, part.first + part.clients) if part.rooms else ()
        return {
            number: {one for room in rooms_of(number, part.followed, part.rooms) for one in by_room.get(room, ())} for number in numbers
        }


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
