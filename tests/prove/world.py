"""Brokers, two instances and some clients, to which anything may happen, with a model of what each client is owed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.prove.world_instances import Instance, Loop
from tests.prove.world_topics import Topics
from tests.support.brokers import Broker
from tests.support.calls import AGAIN_SECONDS, following, subscribe_patiently, unsubscribe_patiently
from tests.support.chats import Chats
from tests.support.checker import Fault, Journal, Kind, Lane, Owed, Record, check, everything
from tests.support.cursor_bytes import mark_of, next_offset, read_cursor
from tests.support.resuming_client import ResumingClient
from tests.support.resuming_visit import Cut, Meta

INSTANCES = 2
SETTLE_SECONDS = 60.0  # after so long without a message none comes any more; then the checker names what did not
LOOK_SECONDS = 0.002
SMALL_BUFFER = 4096
UNAVAILABLE = 503  # the code of an op's error; it asks again

Filter = Callable[[Record], bool]


def only_a(record: Record) -> bool:
    """Let through what the parameter `tag=a` does."""
    return record.tag in (None, "a")


@dataclass(eq=False)
class Client:
    """One client of a user, as the model has it.

    Attributes:
        resuming: what is connected.
        passes: what its filter lets through.
        heard: the chats that it follows, as far as it has been told.
        subscribed: chat -> which subscription to it the client knows of.
        reader: reads, while the client is not slow.
        stopped: set once it does no longer.
        controls: how many of the visit's control frames the model has taken.
        open: a lane -> from where on it is owed.
    """

    resuming: ResumingClient
    passes: Filter = everything
    heard: set[str] = field(default_factory=set)
    subscribed: dict[str, int] = field(default_factory=dict)
    reader: trio.CancelScope | None = None
    stopped: trio.Event = field(default_factory=trio.Event)
    controls: int = 0
    open: dict[Lane, int] = field(default_factory=dict)

    @property
    def connected(self) -> bool:
        return self.resuming.connected

    @property
    def slow(self) -> bool:
        return self.connected and self.reader is None

    def begin(self, lane: Lane, first: int) -> None:
        """Owe it a lane from an offset on."""
        self.end(lane, first)
        self.open[lane] = first
        self.resuming.journal.owe(lane, first, passes=self.passes)

    def end(self, lane: Lane, end: int) -> None:
        """Owe it a lane up to an offset only."""
        first = self.open.pop(lane, None)
        if first is not None:
            owed = self.resuming.journal.owed[lane]
            assert owed[-1].end is None
            owed[-1] = Owed(first, max(first, end), owed[-1].passes)


@dataclass
class Subscription:
    """That a user follows a chat.

    Attributes:
        generation: tells it from earlier and later ones to the same chat.
        positions: a lane -> where it begins.
    """

    generation: int
    positions: dict[Lane, int]


class World(Topics):
    """What exists, what happens to it, and what each client must get. All methods are for one caller at a time, not async.

    Attributes:
        clients: those of this example.
    """

    def __init__(self, broker: Broker, chats: Chats) -> None:
        settings = chats.settings_for(broker, memory__bytes=65_536, server__drain_seconds=0.5)
        super().__init__(broker, chats)
        self.clients: list[Client] = []
        self._loop = Loop()
        self._instances = [Instance(settings) for _ in range(INSTANCES)]
        self._example = 0
        self._generation = 0
        self._subscriptions: dict[str, dict[str, Subscription]] = {}

    # --- the frame

    def start(self) -> None:
        """Start the instances."""
        self._loop.start()
        for instance in self._instances:
            self._loop.do(instance.begin, self._loop.nursery)

    def stop(self) -> None:
        """Stop all."""
        for instance in self._instances:
            self._loop.do(instance.end)
        self._loop.end()

    def new_example(self, users: list[str], rooms: list[str]) -> tuple[list[Client], list[str]]:
        """Begin with clients and chats that were never seen before; the chats have no topics yet."""
        self._example += 1
        self.forget_topics()
        self.clients, self._subscriptions = [], {}
        for at, user in enumerate(users):
            name = f"{user}{self._example}"
            journal = Journal(f"client {at} ({user})")
            resuming = ResumingClient(journal, name, identities=not self._broker.embedded, receive_buffer=SMALL_BUFFER if at % 2 else None)
            self.clients.append(Client(resuming))
            self._subscriptions[name] = {}
        return self.clients, [f"{room}{self._example}" for room in rooms]

    def end_example(self) -> None:
        """Have everybody here and reading, and everything said that is owed; then go."""
        try:
            if self._transaction is not None:
                self.end_transaction(commit=True)
            for client in self.clients:
                if not client.connected:
                    self.connect(client, 0)
                self.read_on(client)
            for chat, lanes in self._topics.items():
                for lane in lanes:
                    self.produce(chat, lane.partition, 1)
            self.settle()
        finally:
            self._loop.do(self._leave)

    # --- what happens

    def restart(self, instance: int) -> None:
        """End an instance, and start it again."""
        self.happened["restart"] += 1
        self._loop.do(self._instances[instance].end)
        self._loop.do(self._instances[instance].begin, self._loop.nursery)

    # --- what clients do

    def subscribe(self, client: Client, chat: str, *, instance: int | None) -> None:
        """Subscribe a user to a chat: by an op of the client, which is connected and reads, or at an instance."""
        self.happened["subscribe"] += 1
        user = client.resuming.user
        stable = {lane: self._end(lane) for lane in self._topics.get(chat, [])}
        if instance is None:
            self._loop.do(self._ask, client, {"op": "subscribe", "chat": chat})
        else:
            self._loop.do(subscribe_patiently, self._instances[instance].url, user, chat)
        if chat not in self._subscriptions[user]:
            self._generation += 1
            self._subscriptions[user][chat] = Subscription(self._generation, stable)
        self._loop.do(self._known_everywhere, user)

    def unsubscribe(self, client: Client, chat: str, *, instance: int | None) -> None:
        """Unsubscribe a user likewise."""
        self.happened["unsubscribe"] += 1
        user = client.resuming.user
        if instance is None:
            self._loop.do(self._ask, client, {"op": "unsubscribe", "chat": chat})
        else:
            self._loop.do(unsubscribe_patiently, self._instances[instance].url, user, chat)
        self._subscriptions[user].pop(chat, None)
        self._loop.do(self._known_everywhere, user)

    def connect(self, client: Client, instance: int, *, in_frame: bool = False) -> None:
        """Come for the first time, or again with the cursor; read."""
        self.happened["connect"] += 1
        stable = {lane: self._end(lane) for lane in self._ends}
        anew = not client.resuming.visits
        self._take_controls(client)
        at = {lane: self._next_offset(client, lane) for lane in client.open}
        client.resuming.query = [("tag", "a")] if client.passes is only_a else []
        self._loop.do(self._come, client, self._instances[instance].url, in_frame)
        hello = client.resuming.visit.hello
        assert hello is not None
        now = self._subscriptions[client.resuming.user]
        assert set(hello.chats) == {*now, "global"}, f"{hello.chats} are followed, not {sorted(now)}"
        assert (hello.resume == "none") is anew, hello
        for lane in list(client.open):
            known = client.subscribed.get(lane.chat)
            if lane.chat not in now or now[lane.chat].generation != known:
                client.end(lane, at[lane])
            elif client.resuming.journal.owed[lane][-1].passes is not client.passes and lane in self._ends:
                client.begin(lane, at[lane])
        for chat, subscription in now.items():
            if anew:
                for lane in self._topics.get(chat, []):
                    told = self._told(hello, lane)
                    assert told <= stable[lane], f"it begins at {told} of {lane}, where {stable[lane]} was the end before it came"
                    client.begin(lane, told)
            elif client.subscribed.get(chat) != subscription.generation:
                for lane, position in subscription.positions.items():
                    if lane in self._ends:  # a topic that was gone before its cursor named it is nothing to the client
                        client.begin(lane, position)
            client.subscribed[chat] = subscription.generation
        client.heard = set(now)
        for chat in set(client.subscribed) - set(now):
            del client.subscribed[chat]

    def cut(self, client: Client, how: Cut) -> None:
        """Cut it off; what it had not read is read again when it comes back."""
        self.happened["cut"] += 1
        self._loop.do(self._stop_reading, client)
        self._loop.do(client.resuming.cut, how)
        self._take_controls(client)

    def slow_down(self, client: Client) -> None:
        """Have it read nothing more."""
        self.happened["slow_down"] += 1
        self._loop.do(self._stop_reading, client)

    def read_on(self, client: Client) -> None:
        """Have it read again."""
        if client.connected and client.reader is None:
            self._loop.do(self._start_reading, client)

    # --- what has to be so

    def settle(self) -> None:
        """Wait until all have what they are owed, as far as they are here and read.

        Raises:
            AssertionError: something is wrong, and what.
        """
        self._loop.do(self._settle)
        here = {client.resuming.journal.client for client in self.clients if client.connected and not client.slow}
        faults = [fault for fault in self._faults() if fault.kind is not Kind.LOST or fault.client in here]
        assert not faults, "\n".join(map(str, faults))
        for client in self.clients:
            if client.resuming.journal.client in here:
                user = client.resuming.user
                assert client.heard == set(self._subscriptions[user]), f"{client.resuming.journal.client} was told of {client.heard}"

    # --- inside

    def _faults(self) -> list[Fault]:
        for client in self.clients:
            self._take_controls(client)
        return check(self.ledger, [client.resuming.journal for client in self.clients])

    async def _settle(self) -> None:
        came = -1
        with trio.move_on_after(SETTLE_SECONDS) as quiet:
            while not all(map(self._has_all, self.clients)):
                now = sum(client.resuming.visit.messages for client in self.clients if client.resuming.visits)
                if now != came:
                    came, quiet.deadline = now, trio.current_time() + SETTLE_SECONDS
                await trio.sleep(LOOK_SECONDS)

    def _has_all(self, client: Client) -> bool:
        if not client.connected or client.slow:
            return True
        self._take_controls(client)
        if client.heard != set(self._subscriptions[client.resuming.user]):
            return False
        for lane, first in client.open.items():
            came = client.resuming.journal.recorded[lane].offsets
            for offset in reversed(self.ledger.lanes.get(lane, {})):
                record = self.ledger.lanes[lane][offset]
                if record.committed and offset >= first and client.passes(record) and not self.ledger.is_gone(lane, offset):
                    if not (came and came[-1] >= offset):
                        return False
                    break
        return True

    def _take_controls(self, client: Client) -> None:
        """Take over what a client was told of its subscriptions since it came."""
        if not client.resuming.visits:
            return
        controls = client.resuming.visit.controls
        new, client.controls = controls[client.controls :], len(controls)
        now = self._subscriptions[client.resuming.user]
        for control in new:
            if control.type == "subscribed" and control.chat not in client.heard:
                client.heard.add(control.chat)
                subscription = now.get(control.chat)
                if subscription is not None:  # else it was unsubscribed from since, which is told next
                    client.subscribed[control.chat] = subscription.generation
                for lane in self._topics.get(control.chat, []):
                    told = control.positions.get(str(lane.partition), 0)
                    if subscription is not None and lane in subscription.positions:
                        end = subscription.positions[lane]
                        assert told <= end, f"{lane} is delivered from {told} on, where {end} was the end before it was asked for"
                    client.begin(lane, told)
            elif control.type == "unsubscribed" and control.chat in client.heard:
                client.heard.discard(control.chat)
                client.subscribed.pop(control.chat, None)
                for lane in [lane for lane in client.open if lane.chat == control.chat]:
                    client.end(lane, control.positions.get(str(lane.partition), client.open[lane]))

    def _next_offset(self, client: Client, lane: Lane) -> int:
        """Return where a client stands that it knows of itself."""
        place = client.resuming.place()
        had = None if place is None else next_offset(place, self._names.topic(lane.chat), lane.topic, lane.partition)
        return client.open[lane] if had is None else max(had, client.open[lane])

    def _told(self, hello: Meta, lane: Lane) -> int:
        """Return where a client begins that comes without a cursor, as `hello` has it."""
        assert hello.cursor is not None
        entry = read_cursor(hello.cursor)[1].get(mark_of(self._names.topic(lane.chat)))
        if entry is None or lane.partition >= len(entry.offsets) or (lane.topic and not entry.is_of(lane.topic)):
            return 0
        offset = entry.offsets[lane.partition]
        assert offset is not None, hello
        return offset

    def _appear(self, chat: str, lanes: list[Lane]) -> None:
        """Partitions are there that were not: who follows the chat gets them from the beginning."""
        super()._appear(chat, lanes)
        for lane in lanes:
            for subscriptions in self._subscriptions.values():
                if chat in subscriptions:
                    subscriptions[chat].positions[lane] = 0
            for client in self.clients:
                if chat in client.subscribed:
                    client.begin(lane, 0)

    async def _come(self, client: Client, url: str, in_frame: bool) -> None:  # noqa: FBT001 - by position from another thread
        await client.resuming.come(url, in_frame=in_frame)
        client.controls = 0
        await client.resuming.read_until(lambda: client.resuming.visit.hello is not None)
        await self._start_reading(client)

    async def _known_everywhere(self, user: str) -> None:
        """Wait until all instances know what a user follows; on one that does not, a client is notified a moment later."""
        for instance in self._instances:
            with trio.fail_after(SETTLE_SECONDS):
                while set(await following(instance.url, user)) != {*self._subscriptions[user], "global"}:  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(LOOK_SECONDS)

    async def _ask(self, client: Client, op: dict[str, Any]) -> None:
        """Ask, again and again while brokers cannot answer: a partition that was added a moment ago may have no leader yet."""
        await self._stop_reading(client)
        with trio.fail_after(SETTLE_SECONDS):
            while (answer := await client.resuming.ask(**op)).type == "error" and answer.code == UNAVAILABLE:  # noqa: ASYNC110
                await trio.sleep(AGAIN_SECONDS)
        assert answer.type == op["op"] + "d", answer
        await self._start_reading(client)

    async def _leave(self) -> None:
        for client in self.clients:
            await self._stop_reading(client)
            client.resuming.let_go()

    async def _start_reading(self, client: Client) -> None:
        client.reader = await self._loop.nursery.start(self._read, client)

    async def _stop_reading(self, client: Client) -> None:
        if client.reader is not None:
            client.reader.cancel()
            await client.stopped.wait()

    async def _read(self, client: Client, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        client.stopped = trio.Event()
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await client.resuming.read()
        client.reader = None
        client.stopped.set()


@contextmanager
def world(broker: Broker, chats: Chats) -> Iterator[World]:
    """Be in a world while the block runs."""
    made = World(broker, chats)
    made.start()
    try:
        yield made
    finally:
        made.stop()
