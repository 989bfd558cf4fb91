"""Reads ranges of old records, with a few Consumers that are kept for later reads.

A Consumer is assigned one partition for one read, and nothing between reads, so a kept one costs threads but fetches nothing.
One read at a time uses it, in a thread, in slices of `POLL_SECONDS`, which is how long a cancel waits.

It reads from one leader and connects to no other broker: librdkafka asks any connected broker for a topic's leaders, and
waits ten seconds for one that hangs.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from ..delivery.records.batch import BATCH_BYTES, Batch
from ..errors import BrokerError, BrokerUnreachable, PositionLost
from ..nursery import open_tasks
from .connect import broker_error, of_the_group
from .records import chat_record, envelope
from .topic_identity import IDENTITY_SECONDS, TopicIdentity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from confluent_kafka import Message

    from ..chat.names import ChatNames
    from ..chat.partition_key import PartitionKey
    from ..delivery.records.record import Record
    from ..delivery.timeouts import BrokerTimeouts
    from ..settings.model import Limits
    from .connect import ClientConfig
    from .lookup import KafkaLookup

CLOSE_SECONDS = 2.0  # for closing all Consumers, which takes milliseconds even while the brokers are away
POLL_SECONDS = 0.1  # how long a poll waits for the first record
REST_SECONDS = 1.0  # how long a Consumer waits for a read that continues where it stopped
IDLE_SECONDS = 30.0  # how long an unused Consumer is kept
SILENT_LEADERS = 8  # leaders that do not answer, each read by one separate Consumer
TOPICS_KNOWN = 1_000  # how many topics are remembered as known to a Consumer
METADATA_SECONDS = 0.1  # otherwise a Consumer finds a new topic half a second late

RECORDS_A_SLICE = 512
# A read is short, and most of what is fetched after its end is discarded. A small queue needs a small backoff: a read of 512
# records takes 2 ms; with the default queue 3 ms, and 90 MB of memory. At the end of a log the next read waits for the fetch
# that is open there.
FETCH_WAIT_MS = 10
_QUEUE = {
    "queued.max.messages.kbytes": 256,
    "queued.min.messages": 64,  # the limit in kilobytes counts values only; this one bounds large keys and headers
    "fetch.message.max.bytes": 65_536,
    "fetch.queue.backoff.ms": 2,
    "enable.partition.eof": True,
}


class KafkaPageSource:
    """Implements the port `PageSource`."""

    def __init__(
        self,
        config: ClientConfig,
        *,
        readers: int,
        silent_leaders: int,
        names: ChatNames,
        limits: Limits,
        lookup: KafkaLookup,
        idle_seconds: float,
    ) -> None:
        self._config = config
        self._idle_seconds = idle_seconds
        self._names = names
        self._message_bytes = limits.message_bytes
        self._lookup = lookup
        self._identity = TopicIdentity(lookup)
        self._free_readers = trio.Semaphore(readers + silent_leaders)
        self._threads = trio.CapacityLimiter(readers + silent_leaders)
        self._most = readers
        self._silent_leaders = silent_leaders
        self._readers: set[_Reader] = set()
        self._idle: list[_Reader] = []  # least recently used first

    @property
    def timeouts(self) -> BrokerTimeouts:
        """How long to wait for brokers."""
        return self._lookup.timeouts

    def leader(self, key: PartitionKey) -> int:
        """Return a partition's leader, as of its last description; see `PageSource`."""
        return next(iter(self._lookup.by_leader([key])))

    @property
    def consumers(self) -> int:
        """How many Consumers there are, for metrics."""
        return len(self._readers)

    async def read(self, key: PartitionKey, first: int, until: int) -> Batch:
        """Read `[first, until)` or a shorter range from `first` on; see `PageSource`."""
        seconds = self._lookup.timeouts.request_seconds
        with trio.move_on_after(seconds):
            async with self._free_readers:
                await self._identity.check(key)
                leader = self.leader(key)
                reader = self._idle_reader(leader, key, first) or await self._new_reader(leader)
                try:
                    page = await self._read_while_listed(reader, key, first, until)
                finally:
                    reader.idle_since = trio.current_time()
                    self._idle.append(reader)
                if page is not None:
                    return page
            await self._refuse_lost(key, first)
        raise BrokerUnreachable(
            f"reading {key} from offset {first} failed: nothing came within {seconds:g} s", topic=key.topic, partition=key.partition
        )

    async def _read_while_listed(self, reader: _Reader, key: PartitionKey, first: int, until: int) -> Batch | None:
        """Return the reader's result, unless its topic turns out to be replaced or gone.

        A Consumer knows topics by name: it continues in a recreated one, and learns of a deletion half a minute late. So the topic is
        looked up during the read, early enough that a deleted topic's leader does not count as silent.
        """
        refusal: BrokerError | None = None
        looked = trio.Event()
        is_fresh = self._identity.is_fresh(key)

        async def look() -> None:
            nonlocal refusal
            if is_fresh:
                looked.set()
                await trio.sleep(self.timeouts.page_seconds / 2)
            while True:
                with suppress(BrokerError):  # the read itself reports brokers that do not answer
                    refusal = await self._identity.refusal(key)
                looked.set()
                if refusal is not None:
                    reading.cancel_scope.cancel()
                await trio.sleep(IDENTITY_SECONDS)

        page = None
        async with open_tasks() as reading:
            reading.start_soon(look)
            page = await trio.to_thread.run_sync(reader.read, key, first, until, limiter=self._threads)
            with trio.move_on_after(self.timeouts.again_seconds):  # the broker it was sent to may hang
                await looked.wait()
        if refusal is not None:
            raise refusal
        return page

    async def _refuse_lost(self, key: PartitionKey, first: int) -> None:
        """Raise `PositionLost` if `first` is below the log's start.

        Otherwise it is beyond the end: a new leader may be a moment behind what consumers saw, so the read is repeated.
        """
        left = (await self._lookup.first_offsets([key])).get(key, 0)
        if left > first:
            raise PositionLost(asked=first, first_left=left)
        raise BrokerUnreachable(f"{key} has no offset {first} now", topic=key.topic, partition=key.partition)

    def _idle_reader(self, leader: int, key: PartitionKey, first: int) -> _Reader | None:
        """Take this leader's reader that continues there, else one without a position, else the least recently used one.

        Returns None if a new one is better, because each idle reader has a position where a read may continue.
        """
        idle = [reader for reader in self._idle if reader.leader == leader]
        going_on = next((reader for reader in idle if reader.at == (key, first)), None)
        reader = going_on or next((reader for reader in idle if reader.at is None), None)
        if reader is None and len(self._readers) >= self._most and idle:
            reader = idle[0]
        if reader is not None:
            self._idle.remove(reader)
        return reader

    async def _new_reader(self, leader: int) -> _Reader:
        if len(self._readers) >= self._most + self._silent_leaders and self._idle:
            await self._close([self._idle.pop(0)])  # another leader's
        servers = self._lookup.address(leader)
        make = partial(_Reader, self._config, self._names, self._message_bytes, leader, servers)
        reader = await trio.to_thread.run_sync(make, limiter=self._threads)
        self._readers.add(reader)
        return reader

    async def run_tidying(self) -> None:
        """Pause Consumers that no read continues, and close unused ones after a while, until cancelled."""
        while True:
            await trio.sleep(min(REST_SECONDS, self._idle_seconds / 6))
            now = trio.current_time()
            old = [reader for reader in self._idle if now - reader.idle_since > self._idle_seconds]
            self._idle = [reader for reader in self._idle if reader not in old]
            await self._close(old)  # `close` closes those that a cancel leaves open
            tired = [reader for reader in self._idle if reader.at is not None and now - reader.idle_since > REST_SECONDS]
            self._idle = [reader for reader in self._idle if reader not in tired]
            try:
                for reader in tired:
                    await trio.to_thread.run_sync(reader.rest, limiter=self._threads)
            finally:
                self._idle[:0] = tired

    async def close(self) -> None:
        """Close all Consumers; no read may be in progress."""
        await self._close(list(self._readers))

    async def _close(self, readers: Sequence[_Reader]) -> None:
        for reader in readers:
            await trio.to_thread.run_sync(reader.close, limiter=self._threads)
            self._readers.discard(reader)


class _Reader:
    """One Consumer. All its methods run in a thread.

    It keeps its position and the records that librdkafka has prefetched, so consecutive pages of a partition need no new
    fetch each.

    Attributes:
        leader: the broker it reads from.
        at: the partition and the offset where it continues; None if it has no assignment.
        idle_since: when it was last used; `trio.current_time()`.
    """

    def __init__(self, config: ClientConfig, names: ChatNames, message_bytes: int, leader: int, servers: str | None) -> None:
        there = {} if servers is None else {"bootstrap.servers": servers}
        # The Tail reports absent brokers; without a callback librdkafka would return these errors as records.
        self._consumer = Consumer(config.consumer(fetch_wait_ms=FETCH_WAIT_MS, error_cb=_ignore, **_QUEUE, **there))
        self.leader = leader
        self._names = names
        self._message_bytes = message_bytes
        self._known: set[tuple[str, str]] = set()
        self._taken: list[_Arrival] = []  # taken from the Consumer, not returned yet
        self.at: tuple[PartitionKey, int] | None = None
        self.idle_since = 0.0

    def read(self, key: PartitionKey, first: int, until: int) -> Batch | None:
        """Return a range of a partition; None if the broker says that `first` is out of range or at the end of its log.

        Goes on until it has one of the two, or is cancelled.
        """
        goes_on = self.at == (key, first)
        if not goes_on:
            self.rest()
            self._look_up(key)
            self._consumer.assign([TopicPartition(key.topic, key.partition, first)])
        try:
            records, end = self._collect(key, first, until, goes_on=goes_on)
        except _OutOfRange:
            self.rest()
            return None
        except BaseException:
            self.rest()
            raise
        self.at = key, end
        return Batch.decode(records, key, first=first, next=end, chat=self._names.chat(key.topic), max_bytes=self._message_bytes)

    def rest(self) -> None:
        """Drop the assignment."""
        self._consumer.unassign()
        self._taken = []
        self.at = None

    def close(self) -> None:
        """Close the Consumer."""
        self._consumer.close()

    def _collect(self, key: PartitionKey, first: int, until: int, *, goes_on: bool) -> tuple[list[Record], int]:
        records: list[Record] = []
        size, after = 0, first
        while True:
            trio.from_thread.check_cancelled()
            messages, self._taken = self._taken or self._poll(), []
            for number, (error, offset, record) in enumerate(messages):
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    end = offset
                    if end > first:
                        self._taken = messages[number + 1 :]
                        return records, min(end, until)
                    if not goes_on:  # out of range now; a read that continues may get an error from earlier
                        raise _OutOfRange
                    continue
                if error is not None and of_the_group(error):
                    continue
                if error is not None:
                    raise _error(error, key)
                if record is None:
                    continue
                if offset >= until:
                    self._taken = messages[number:]
                    return records, until
                if records and size + record.size > BATCH_BYTES:
                    self._taken = messages[number:]
                    return records, after
                records.append(record)
                size += record.size
                after = max(after, offset + 1)  # offsets need not ascend
            if self._position(key) >= until:
                return records, until

    def _poll(self) -> list[_Arrival]:
        first = self._consumer.poll(POLL_SECONDS)
        return [] if first is None else [_arrival(message) for message in (first, *self._consumer.consume(RECORDS_A_SLICE, 0))]

    def _position(self, key: PartitionKey) -> int:
        """Return the Consumer's position, past transaction markers; negative before the first record."""
        return self._consumer.position([TopicPartition(key.topic, key.partition)])[0].offset

    def _look_up(self, key: PartitionKey) -> None:
        """Make the Consumer look up this topic's leaders at once instead of later."""
        if (key.topic, key.topic_id) in self._known:
            return
        if len(self._known) >= TOPICS_KNOWN:
            self._known.clear()
        self._known.add((key.topic, key.topic_id))
        with suppress(KafkaException):  # a broker that is away
            self._consumer.list_topics(key.topic, timeout=METADATA_SECONDS)


class _Arrival(NamedTuple):
    """A message from the Consumer: an error, a record, or neither if it cannot be identified."""

    error: KafkaError | None
    offset: int
    record: Record | None


def _arrival(message: Message) -> _Arrival:
    error, _, _, offset = envelope(message)
    return _Arrival(error, offset, chat_record(message, offset) if error is None and offset >= 0 else None)


class _OutOfRange(Exception):
    """The broker has no such offset, or does not have it yet."""


def _error(error: KafkaError, key: PartitionKey) -> Exception:
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        return _OutOfRange()
    return broker_error(error, f"reading {key}", topic=key.topic, partition=key.partition)


def _ignore(error: KafkaError) -> None:
    """Ignore a client-wide error: the lookups report it."""


@asynccontextmanager
async def open_page_source(
    config: ClientConfig,
    *,
    readers: int,
    names: ChatNames,
    limits: Limits,
    lookup: KafkaLookup,
    silent_leaders: int = 0,
    idle_seconds: float = IDLE_SECONDS,
) -> AsyncIterator[KafkaPageSource]:
    """Make a page source available while the block runs: `readers` concurrent reads, and a few more from leaders that hang."""
    pages = KafkaPageSource(
        config, readers=readers, silent_leaders=silent_leaders, names=names, limits=limits, lookup=lookup, idle_seconds=idle_seconds
    )
    try:
        async with open_tasks() as nursery:
            nursery.start_soon(pages.run_tidying)
            yield pages
    finally:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await pages.close()
