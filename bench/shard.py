"""A part of the crowd in its own process, so that one core is not all that the load generator has."""

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

DOUBLES_SECONDS = 0.7  # what comes twice comes within so long after the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Who is in a shard.

    Attributes:
        host: of the server.
        port: of the server.
        first: the first client's number.
        clients: how many.
        user: what the names of users begin with.
        query: of their addresses, with its question mark; "" for none.
        tls: they speak TLS.
        centrifugo: they speak Centrifugo's protocol.
        topic: that all follow, where there are no rooms.
        rooms: how many there are; 0: none.
        followed: rooms a client.
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
        """Return what a client follows, by the names that Centrifugo has for it."""
        if not self.rooms:
            return [channel_of(self.topic)]
        return [channel_of(f"{self.topic}{room}") for room in rooms_of(number, self.followed, self.rooms)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What will be sent.

    Attributes:
        tag: what the texts begin with.
        messages: how many.
        timed: whether latencies are measured.
        stall: seconds without a delivery after which it is given up.
    """

    tag: str
    messages: int
    timed: bool
    stall: float


@dataclass(slots=True, kw_only=True)
class Came:
    """What a shard has had in a round.

    Attributes:
        came: deliveries.
        first: when the first was read, in seconds of the monotonic clock; 0: none was.
        last: when the last was.
        latencies: nanoseconds from before the produce to after the read.
        cpu: seconds that the shard has spent, until all were there.
        missing: messages that did not come, over all clients.
        doubles: that came again.
        disordered: that came after a later one.
        cut: connections that the server has ended.
        frames: data frames.
        reasons: close frames, in all.
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
    """The shard, as the load generator has it; each method talks to the process.

    Args:
        part: who is in it.
    """

    def __init__(self, part: Part) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, part), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, *order: object) -> None:
        """Ask for something: the name of one of `_Serving`'s methods, and what it takes."""
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
    """The process's side. Each method answers once, or as often as it says."""

    def __init__(self, connection: Connection, part: Part) -> None:
        self._connection = connection
        self._part = part
        self.crowd = Crowd(
            centrifugo=part.centrifugo, first=part.first, user=part.user, query=part.query, tls=part.tls, channels=part.channels
        )

    def connect(self) -> None:
        """Connect everybody."""
        self.crowd.connect(self._part.host, self._part.port, self._part.clients)
        self._connection.send(None)

    def idle(self, seconds: float) -> None:
        """Answer pings for so long; answer how many came."""
        before = self.crowd.pings
        self.crowd.pump_for(seconds)
        self._connection.send(self.crowd.pings - before)

    def feed(self, tag: str, seconds: float) -> None:
        """Answer at once that it has begun; then, how many clients have had the tag in each of their rooms, once all have."""
        self._connection.send(None)
        wanted = len(self._part.channels(0))
        of_room = re.compile(tag.encode() + rb"\.(\d{8})\.").findall
        had: dict[int, set[int]] = {}
        fed = 0

        def take(client: Client, data: bytes) -> None:
            nonlocal fed
            if client.fed or tag.encode() not in data:
                return
            # The number of a message says its room; without rooms one is as good as another.
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
        """Answer at once that it has begun; then, when the text was read (ns of the monotonic clock; 0: it did not come)."""
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
        """Answer at once that it has begun; then None, once all is there; then what came, doubles included."""
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
        """Return which messages each client is to have, where there are rooms."""
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
