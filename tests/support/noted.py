"""Messages of one chat, each noted in a ledger, and clients that must get all of them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from .brokers import KafkaCluster
from .chats import Chats, message
from .checker import Journal, Lane, Ledger, Record, assert_nothing_wrong
from .resuming_client import ResumingClient, resuming
from .resuming_visit import Visit
from .steady_producer import Room, identity_told, made

SECONDS = 20.0


class Noted:
    """A chat of a test.

    Attributes:
        chat: its name.
        topic: its topic's name.
        room: its topic as it is now.
        ledger: what was produced.
        clients: who is owed.
    """

    def __init__(self, kafka: KafkaCluster, chats: Chats, chat: str = "room") -> None:
        self.kafka = kafka
        self.chat = chat
        self.topic = chats.topic(chat)
        self.room = Room(chat, self.topic, "", 0)
        self.ledger = Ledger()
        self.clients: list[ResumingClient] = []
        self._chats = chats
        self._numbers = itertools.count()

    @property
    def lanes(self) -> list[Lane]:
        """Its partitions."""
        return self.room.lanes

    async def create(self, partitions: int = 1, **config: str | int) -> None:
        """Create its topic. All clients so far must get all of it."""
        self.room = await trio.to_thread.run_sync(partial(made, self.kafka, self._chats, self.chat, partitions, **config))
        for client in self.clients:
            self._owe(client)

    async def recreate(self, partitions: int = 1) -> None:
        """Delete its topic, and make one of the same name."""
        await trio.to_thread.run_sync(self.kafka.delete_topic, self.topic)
        self.ledger.deleted(self.chat, self.room.identity)
        await self.create(partitions)

    async def add_partitions(self, total: int) -> None:
        """Set the number of partitions. All clients must get all of them."""
        old = set(self.lanes)
        await trio.to_thread.run_sync(self.kafka.add_partitions, self.topic, total)
        self.room = Room(self.chat, self.topic, identity_told(self.kafka.topic_id(self.topic)), total)
        for client in self.clients:
            for lane in set(self.lanes) - old:
                client.journal.owe(lane, 0)

    async def produce(self, count: int = 1, *, partition: int = 0, padding: str = "", tag: str | None = None) -> list[int]:
        """Produce this many, and return their offsets."""
        numbers = list(itertools.islice(self._numbers, count))
        values = [message(f"{number} {padding}", tag=tag) for number in numbers]
        records = await trio.to_thread.run_sync(partial(self.kafka.produce_many, self.topic, values, partition=partition))
        for number, record in zip(numbers, records, strict=True):
            self.note(number, record.offset, partition=partition, tag=tag)
        return [record.offset for record in records]

    def number(self) -> int:
        """Return a number for a message that the test produces itself; its text has to begin with it and a space."""
        return next(self._numbers)

    def note(self, number: int, offset: int, *, partition: int = 0, tag: str | None = None, committed: bool = True) -> None:
        """Note where such a message is."""
        self.ledger.produced(self.lanes[partition], offset, Record(number, committed=committed, tag=tag))

    async def in_transaction(self, count: int, *, commit: bool, partition: int = 0) -> list[int]:
        """Produce this many in a transaction, end it, and return their offsets."""
        transaction = await trio.to_thread.run_sync(self.kafka.transaction)
        offsets = []
        for number in itertools.islice(self._numbers, count):
            record = await trio.to_thread.run_sync(partial(transaction.produce, self.topic, message(f"{number} "), partition=partition))
            self.note(number, record.offset, partition=partition, committed=commit)
            offsets.append(record.offset)
        await trio.to_thread.run_sync(transaction.commit if commit else transaction.abort)
        return offsets

    async def trim(self, before: int, *, partition: int = 0) -> None:
        """Delete what lies below an offset."""
        left = await trio.to_thread.run_sync(self.kafka.delete_records, self.topic, partition, before)
        self.ledger.trimmed(self.lanes[partition], left)

    def client(self, user: str = "ann", *query: tuple[str, str], owed: bool = True, by_name: bool = True) -> ResumingClient:
        """Return a client that is not connected.

        Args:
            user: whose.
            query: its parameters.
            owed: all of the chat, from its beginning on; else the test says what.
            by_name: it names the chat, so nobody has to subscribe.
        """
        named = [("chat", self.chat)] if by_name else []
        client = ResumingClient(Journal(f"{user} {len(self.clients)}"), user, query=[*named, *query])
        self.clients.append(client)
        if owed:
            self._owe(client)
        return client

    def _owe(self, client: ResumingClient) -> None:
        for lane in self.lanes:
            client.journal.owe(lane, 0)

    def has_all(self, client: ResumingClient) -> Callable[[], bool]:
        """Return what tells whether the last message of every partition that it is owed has come."""

        def has() -> bool:
            for lane in self.lanes:
                due = [offset for offset, record in self.ledger.lanes[lane].items() if record.committed]
                came = client.journal.recorded[lane].offsets
                owed = due and any(owed.has(max(due), self.ledger.lanes[lane][max(due)]) for owed in client.journal.owed[lane])
                if owed and not (came and came[-1] >= max(due)):
                    return False
            return True

        return has

    async def get_all(self, *clients: ResumingClient) -> None:
        """Let clients read until they have everything, for as long as anything comes; `check` names what is missing."""
        for client in clients:
            await client.read_rest(self.has_all(client), quiet_seconds=SECONDS)

    def check(self) -> None:
        """Raise `AssertionError` where something is wrong with what any client got."""
        assert_nothing_wrong(self.ledger, [client.journal for client in self.clients])


async def until_live(*clients: ResumingClient, seconds: float = SECONDS) -> None:
    """Have clients read until `live`."""
    for client in clients:
        await client.read_until(partial(_is_live, client.visit), seconds=seconds)


def _is_live(visit: Visit) -> bool:
    return visit.live is not None


def gaps(client: ResumingClient) -> list[tuple[str, int, int, int, str]]:
    """Return what a client was told of gaps on its last connection."""
    told = [control for control in client.visit.controls if control.type == "gap"]
    return [(gap.chat, gap.partition, gap.first_lost, gap.first_left, gap.cause) for gap in told]


@asynccontextmanager
async def noted(kafka: KafkaCluster, chats: Chats, *, partitions: int = 1, **config: str | int) -> AsyncIterator[Noted]:
    """Make a chat, with a topic unless it is to have no partitions; check all of its clients when the block has ended."""
    made_chat = Noted(kafka, chats)
    if partitions:
        await made_chat.create(partitions, **config)
    let_go: Sequence[ResumingClient] = made_chat.clients
    with resuming(let_go):
        yield made_chat
    made_chat.check()
