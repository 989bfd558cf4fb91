"""Our own tail of the subscriptions topic.

Its first partition is read from the beginning, by one Consumer in one thread at a time, and folded in the trio thread. The
fold belongs to one topic id: if the topic is recreated, or our position in it is lost, a second fold is read from the
beginning while the first stays in use, and then the difference is reported. So live sessions always end up correct.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ..changes import Changes
from ..chat.partition_key import PartitionKey
from ..chat.resume_cursor import NO_EPOCH, NOT_KNOWN
from ..chat.subscription_fold import Following, Skip, record_key, record_value
from ..delivery.ports import KeyedRecord
from ..errors import BrokerError, BrokerUnreachable, TopicGone
from ..loop_sharing import Turn
from ..nursery import open_tasks
from .record_reader import open_record_reader
from .subscriptions_topic import SubscriptionsTopic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from ..chat.subscription_change import SubscriptionChange
    from ..delivery.ports import Lookup, Publisher
    from ..telemetry.metrics import Telemetry
    from .connect import ClientConfig
    from .lookup import KafkaLookup
    from .record_reader import Piece, RecordReader

PARTITION = 0
FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 3.0
LOOK_SECONDS = 2.0  # how soon a recreated topic is noticed
LOOK_CLOSER_SECONDS = 5.0  # how soon a change of its cleanup.policy is noticed


class SubscriptionLog:
    """Implements the port of the same name.

    Args:
        config: how to reach the brokers.
        topic: its name; `SubscriptionsTopic` creates and checks it.
        publisher: writes to it.
        lookup: asks the brokers where it begins and ends.
        listener: called in the trio thread for every change after the first reading, once `chats_of` has it; after the topic
            was read again possibly for changes that it already knows. One change at a time, and never cancelled.
        telemetry: counts invalid records.
    """

    def __init__(
        self,
        config: ClientConfig,
        topic: SubscriptionsTopic,
        *,
        publisher: Publisher,
        lookup: Lookup,
        listener: Callable[[SubscriptionChange], Awaitable[None]],
        telemetry: Telemetry,
    ) -> None:
        self._config = config
        self._topic = topic
        self._publisher = publisher
        self._lookup = lookup
        self._listener = listener
        self._telemetry = telemetry
        self._following = Following()
        self._topic_id: str | None = None  # the topic id of the fold
        self._untold: Following | None = None  # the earlier fold, until the difference is reported
        self._position = 0  # the next offset to fold
        self._epoch = NO_EPOCH  # the leader epoch of the record before it
        self._reading = trio.CancelScope()
        self._moved = Changes()
        self._read = trio.Event()
        self._unfit: str | None = None  # why the topic cannot be used; reported until it is repaired
        self._away: str | None = None  # why it cannot be read now

    @property
    def ready(self) -> bool:
        """Whether it has been read up to its end at our start."""
        return self._read.is_set()

    @property
    def position(self) -> int:
        """The first offset that `chats_of` does not include yet; see the port."""
        return NOT_KNOWN if self.ready and self._topic_id is None else self._position

    @property
    def problem(self) -> str | None:
        """Why it cannot be read or written, as a sentence for the operator; None if it can."""
        reading = None if self.ready else f"the subscriptions topic {self._topic.name} is still being read"
        return self._unfit or self._away or reading

    async def wait_ready(self) -> None:
        """Wait until `ready`."""
        await self._read.wait()

    def chats_of(self, username: str) -> Mapping[str, SubscriptionChange]:
        """Return chat -> subscription of one user; see the port."""
        return self._following.chats_of(username)

    async def write(self, changes: Sequence[SubscriptionChange]) -> int:
        """Produce changes, and return the last one's offset; see the port."""
        if self._unfit or not self.ready:
            raise BrokerError(self.problem or "", topic=self._topic.name)
        before = self._position
        records = [KeyedRecord(record_key(change.username, change.chat), record_value(change)) for change in changes]
        offset = await self._publisher.publish_together(self._topic.name, records, partition=PARTITION)
        if offset < before:
            raise self._recreated()  # not noticed by our reader yet
        return offset

    async def passed(self, offset: int) -> None:
        """Wait until the record acknowledged at `offset` is folded; see the port."""
        topic_id = self._topic_id
        while self._position <= offset:
            await self._moved.wait_beyond(self._moved.version)
            if self._topic_id != topic_id:
                raise self._recreated()

    def read_again(self) -> None:
        """Read from the beginning, because the brokers are another cluster."""
        self._topic_id = None
        self._reading.cancel()
        self._moved.note()

    async def run(self) -> None:
        """Read, whatever happens to brokers and topic, until cancelled; a cancel takes up to a second."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = trio.current_time()
            try:
                facts = await self._topic.ensure()
                self._tell_unfit(None)
                start, end = await self._range(facts.topic_id)
                self._away = None
                self._away = await self._follow(facts.topic_id, start, end)
            except BrokerUnreachable as error:
                self._away = str(error)
            except BrokerError as error:
                self._tell_unfit(str(error))
            if trio.current_time() - began > LAST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS  # it did work
            await trio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE_SECONDS)

    def _tell_unfit(self, problem: str | None) -> None:
        if problem is not None and problem != self._unfit:
            self._telemetry.subscriptions_problem(reason=problem)
        self._unfit = problem

    async def _range(self, topic_id: str) -> tuple[int, int]:
        """Return the offset to start reading at, and the end up to which the fold is incomplete."""
        key = PartitionKey(self._topic.name, topic_id, PARTITION)
        if topic_id == self._topic_id and self._epoch != NO_EPOCH:
            stands = (await self._lookup.epoch_ends([key], self._epoch)).get(key)
            if stands is not None and stands < self._position:  # the log lost its end while it was not being read
                self._topic_id = None
        end = (await self._lookup.last_stable_offsets([key])).get(key)
        start = self._position if topic_id == self._topic_id else (await self._lookup.first_offsets([key])).get(key)
        if start is None or end is None:
            raise BrokerUnreachable(f"{key} has no leader now", topic=key.topic, partition=PARTITION)
        return start, end

    async def _follow(self, topic_id: str, start: int, end: int) -> str | None:
        """Read from `start` on until the topic is replaced or our position in it is lost; or return a problem."""
        problem = None
        epoch = self._epoch if topic_id == self._topic_id else NO_EPOCH
        async with open_record_reader(self._config, self._topic.name, PARTITION, start, epoch) as reader, open_tasks() as tasks:
            self._reading = tasks.cancel_scope
            tasks.start_soon(self._watch, topic_id)
            if topic_id == self._topic_id:
                problem = await self._read_on(reader)
            else:
                problem = await self._read_again(reader, topic_id, end)
        return problem

    async def _read_again(self, reader: RecordReader, topic_id: str, end: int) -> str | None:
        """Make a new fold, replace the old one once it is complete, then continue."""
        began, records = trio.current_time(), 0
        following, position, epoch = Following(), reader.start, NO_EPOCH
        while position < end:
            piece = await reader.read()
            if piece.lost or piece.problem:
                return piece.problem
            self._fold(following, piece)
            position, records = piece.next, records + len(piece.records)
            epoch = piece.epoch
        if self.ready and self._untold is None:
            self._untold = self._following
        self._following, self._topic_id, self._position, self._epoch = following, topic_id, position, epoch
        self._telemetry.subscriptions_read(users=len(following), records=records, seconds=trio.current_time() - began)
        self._read.set()
        self._moved.note()
        return await self._read_on(reader)

    async def _read_on(self, reader: RecordReader) -> str | None:
        await self._tell_difference()
        while True:
            piece = await reader.read()
            if piece.lost:
                self._topic_id = None
                return None
            if piece.problem:
                return piece.problem
            changes = self._fold(self._following, piece)
            if piece.next > self._position:
                # When a waiter sees its change, live sessions already follow it.
                await self._tell(changes)
                self._position, self._epoch = piece.next, piece.epoch
                self._moved.note()

    def _fold(self, following: Following, piece: Piece) -> list[SubscriptionChange]:
        changes = []
        for offset, key, value in piece.records:
            outcome = following.apply(key, value, offset=offset)
            if isinstance(outcome, Skip):
                self._telemetry.subscription_skipped(topic=self._topic.name, offset=offset, reason=outcome)
            elif outcome is not None:
                changes.append(outcome)
        return changes

    async def _tell_difference(self) -> None:
        """Report the differences from the earlier fold to sessions, and lost subscriptions to the operator."""
        if self._untold is None:
            return
        lost = 0

        def counted(changes: Iterable[SubscriptionChange]) -> Iterator[SubscriptionChange]:
            nonlocal lost
            for change in changes:
                lost += not change.subscribed
                yield change

        await self._tell(counted(self._following.changes_from(self._untold)))
        self._untold = None
        if lost:
            self._telemetry.subscriptions_lost(topic=self._topic.name, subscriptions=lost)

    async def _tell(self, changes: Iterable[SubscriptionChange]) -> None:
        """Report folded changes. Shielded, because a folded change is not reported again; it does not block."""
        turn = Turn()
        with trio.CancelScope(shield=True):
            for change in changes:
                await self._listener(change)
                await turn.share()

    async def _watch(self, topic_id: str) -> None:
        """Return when the topic is gone or replaced; report a wrong configuration."""
        look_closer = trio.current_time() + LOOK_CLOSER_SECONDS
        while True:
            await trio.sleep(LOOK_SECONDS)
            try:
                facts = await self._topic.look()
                self._away = None
                if facts is None or facts.topic_id != topic_id:
                    self._reading.cancel()
                    return
                if self._unfit or trio.current_time() >= look_closer:
                    look_closer = trio.current_time() + LOOK_CLOSER_SECONDS
                    self._tell_unfit(await self._topic.problem(facts))
            except BrokerUnreachable as error:
                self._away = str(error)
            except BrokerError as error:
                self._tell_unfit(str(error))

    def _recreated(self) -> TopicGone:
        return TopicGone(f"the subscriptions topic {self._topic.name} was recreated; it is read again", topic=self._topic.name)


@asynccontextmanager
async def open_subscription_log(
    config: ClientConfig,
    *,
    topic: str,
    publisher: Publisher,
    lookup: KafkaLookup,
    listener: Callable[[SubscriptionChange], Awaitable[None]],
    telemetry: Telemetry,
) -> AsyncIterator[SubscriptionLog]:
    """Follow the subscriptions while the block runs; the brokers may be away."""
    care = SubscriptionsTopic(config, topic, lookup=lookup, publisher=publisher)
    log = SubscriptionLog(config, care, publisher=publisher, lookup=lookup, listener=listener, telemetry=telemetry)
    async with open_tasks() as nursery:
        nursery.start_soon(log.run)
        yield log
