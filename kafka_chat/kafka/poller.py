"""The one thread that owns the Tail's Consumer."""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from ..chat.resume_cursor import NO_EPOCH
from ..delivery.records.batch import BATCH_BYTES, Batch
from .connect import of_the_group
from .ids_read import IdsRead
from .records import chat_record, envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..chat.partition_key import PartitionKey
    from ..delivery.records.record import Record
    from .connect import ClientConfig

# How long a poll waits for the first record. It ends at once when one comes, so this does not delay records; but requests
# and cancels wait for it. 1 % of a core at 20 ms.
POLL_SECONDS = 0.02
FETCH_WAIT_MS = 20  # a new partition waits for the open fetch; 0.2 % of a core at 50, 0.5 % at 10

RECORDS_A_ROUND = 1000  # making this many blocks the trio loop for 0.5 ms; 1.7 ms for 5000
CHANGES_A_ROUND = 200  # assigning this many takes 5 ms

PROBE_SECONDS = 1.0  # how often positions are checked that may have moved over transaction markers only

METADATA_SECONDS = 0.1  # otherwise the Consumer finds a new topic half a second late
METADATA_KNOWN_SECONDS = 300.0  # shorter than `metadata.max.age.ms`
METADATA_AGAIN_SECONDS = 0.2
METADATA_TRIES = (
    5  # with three brokers, all five tries meet the one that hangs once in 243 times; distant brokers answer later than we wait
)

# Limits of librdkafka's prefetch: it requests no more while it has 64 records or 4 MiB, and a broker's response is at most 4 MiB
# (default: 50) or one larger record. The bytes are those of values only, so the number of records bounds large keys and headers. A
# small queue needs a small backoff: by default it pauses for a second whenever the queue was full. With these limits it reads
# 190,000 small records a second, and 400,000 without, at the same CPU; decoding them takes longer. docs/operations.md has the formula.
_QUEUE = {"queued.min.messages": 64, "queued.max.messages.kbytes": 4_096, "fetch.max.bytes": 4 << 20, "fetch.queue.backoff.ms": 10}

_log = logging.getLogger("kafka_chat.kafka")

PartitionName = tuple[str, int]  # topic and partition as librdkafka knows them: without the topic's id


@dataclass(eq=False, slots=True)
class Assignment:
    """One partition, followed from one offset on. Another offset is another assignment.

    Attributes:
        key: which partition.
        chat: the `chat` field of its frames.
        start: the first offset.
        epoch: the leader epoch of the record before `delivered`, or a later one; `NO_EPOCH` if none is known. Owned by the trio thread.
        position: the offset after the last record from the Consumer. Owned by the polling thread.
        replaced: whether the Consumer has read another topic here, so that its position is meaningless. Owned by the polling thread.
        delivered: the offset after the last record handed over. Owned by the trio thread.
    """

    key: PartitionKey
    chat: str
    start: int
    epoch: int = NO_EPOCH
    position: int = field(init=False)
    replaced: bool = field(init=False, default=False)
    delivered: int = field(init=False)

    def __post_init__(self) -> None:
        self.position = self.delivered = self.start

    @property
    def partition_name(self) -> PartitionName:
        """Topic and partition."""
        return self.key.topic, self.key.partition


@dataclass(slots=True)
class Round:
    """The result of one poll.

    Attributes:
        appended: partition -> consecutive batches.
        broken: partitions that librdkafka does not read until they are assigned again.
        replaced: partitions where it reads another topic of that name; those records are dropped.
    """

    appended: list[tuple[Assignment, list[Batch]]] = field(default_factory=list)
    broken: list[tuple[Assignment, KafkaError]] = field(default_factory=list)
    replaced: list[Assignment] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.appended or self.broken or self.replaced)


class Poller:
    """Reads the assigned partitions, and hands records over in rounds.

    `assign` and `unassign` are called in the trio thread and change what is *wanted*; the thread adapts its Consumer
    between two polls. It waits while a round is delivered, so it is never more than one round ahead of the trio thread. A
    round may contain an assignment that is no longer wanted; check with `wants`.

    Args:
        config: configures the Consumer.
        deliver: called with each round, in the trio thread.
        trouble: called in the trio thread when librdkafka cannot open or keep a connection.
        message_bytes: `limits.message_bytes`.
    """

    def __init__(self, config: ClientConfig, *, deliver: Callable[[Round], None], trouble: Callable[[], None], message_bytes: int) -> None:
        self._config = config
        self._deliver = deliver
        self._trouble = trouble
        self._message_bytes = message_bytes
        self._wanted: dict[PartitionName, Assignment] = {}  # changed by the trio thread, read by the polling thread
        self._changed: deque[PartitionName] = deque()
        self._assigned: dict[PartitionName, Assignment] = {}  # everything below is owned by the polling thread
        self._ids = IdsRead(config.logger)
        self._known: dict[tuple[str, str], float] = {}  # topic and id -> when the Consumer was made to look it up
        self._unknown: dict[tuple[str, str], int] = {}  # topics still unknown to the Consumer -> lookups left
        self._looked_up = 0.0
        self._probed = 0.0
        self.rounds = 0  # how many rounds it has made

    def assign(self, assignment: Assignment) -> None:
        """Read this partition from its `start` on, instead of any other assignment of it."""
        self._wanted[assignment.partition_name] = assignment
        self._changed.append(assignment.partition_name)

    def unassign(self, assignment: Assignment) -> None:
        """Stop reading this assignment."""
        if self.wants(assignment):
            del self._wanted[assignment.partition_name]
            self._changed.append(assignment.partition_name)

    def wants(self, assignment: Assignment) -> bool:
        """Return whether this very assignment is wanted."""
        return self._wanted.get(assignment.partition_name) is assignment

    @property
    def followed(self) -> int:
        """How many partitions are wanted."""
        return len(self._wanted)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Poll until cancelled, which takes up to `POLL_SECONDS`; started once the Consumer exists.

        The thread is never abandoned: it would go on using a closed Consumer.
        """
        token = trio.lowlevel.current_trio_token()

        def trouble(error: KafkaError) -> None:
            # Called inside poll(), where an exception would be garbled.
            if error.code() != KafkaError._ALL_BROKERS_DOWN:  # it only repeats earlier ones
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(self._trouble, idempotent=True)  # up to thousands a second

        properties = self._config.consumer(fetch_wait_ms=FETCH_WAIT_MS, error_cb=trouble, **_QUEUE)

        def poll() -> None:
            consumer = Consumer(properties if self._config.embedded else self._ids.heard(properties))
            try:
                trio.from_thread.run_sync(task_status.started)
                while True:
                    trio.from_thread.check_cancelled()
                    self._reconcile(consumer)
                    self._poll(consumer)
                    self.rounds += 1
            finally:
                consumer.close()

        await trio.to_thread.run_sync(poll, limiter=trio.CapacityLimiter(1), thread_name="kafka_chat tail")

    # Everything below runs in the thread.

    def _poll(self, consumer: Consumer) -> None:
        first = consumer.poll(POLL_SECONDS)
        if first is not None:
            # `consume` waits its whole timeout for this many records; with a timeout of 0 it takes what is there.
            taken = self._take(consumer, [first, *consumer.consume(RECORDS_A_ROUND, 0)])
        elif time.monotonic() - self._probed >= PROBE_SECONDS:
            self._probed = time.monotonic()
            taken = self._probe(consumer)
        else:
            return
        if taken:
            trio.from_thread.run_sync(self._deliver, taken)

    def _take(self, consumer: Consumer, messages: Sequence[Message]) -> Round:
        taken = Round()
        records: dict[PartitionName, list[Record]] = {}
        for message in messages:
            error, topic, partition, offset = envelope(message)
            assignment = self._assigned.get((topic, partition))  # type: ignore[arg-type]  # of an error without
            if error is None and assignment is not None:
                records.setdefault(assignment.partition_name, []).append(chat_record(message, offset))
            elif error is not None and assignment is not None:
                taken.broken.append((assignment, error))
            elif error is not None and not of_the_group(error):
                _log.warning("the tail's consumer says: %s", error.str())
        for partition_name, position in _positions(consumer, records):
            self._add(taken, self._assigned[partition_name], records[partition_name], position)
        return taken

    def _probe(self, consumer: Consumer) -> Round:
        """Advance positions over transaction markers that no record follows.

        The Consumer's position counts only what was taken from it, and right after an assign there is none; so it never
        passes a record that was not taken.
        """
        taken = Round()
        for partition_name, position in _positions(consumer, self._assigned):
            assignment = self._assigned[partition_name]
            if position > assignment.position:
                self._add(taken, assignment, (), position)
        return taken

    def _add(self, taken: Round, assignment: Assignment, records: Iterable[Record], position: int) -> None:
        """Add records of a partition, read up to `position`, unless they are another topic's: then nothing until it is assigned again."""
        if assignment.replaced:
            return
        assignment.replaced = not self._ids.reads(assignment.key.topic, assignment.key.topic_id)
        if assignment.replaced:
            taken.replaced.append(assignment)
        else:
            taken.appended.append((assignment, list(self._batches(assignment, records, position))))

    def _batches(self, assignment: Assignment, records: Iterable[Record], position: int) -> Iterator[Batch]:
        """Split records into batches of at most `BATCH_BYTES`; the last one ends at `position`."""
        piece: list[Record] = []
        size, end = 0, assignment.position
        for record in records:
            length = record.size
            if piece and size + length > BATCH_BYTES:
                yield self._batch(assignment, piece, end)
                piece, size = [], 0
            piece.append(record)
            size += length
            end = max(end, record.offset + 1)  # offsets need not ascend
        yield self._batch(assignment, piece, max(position, end))

    def _batch(self, assignment: Assignment, records: Sequence[Record], position: int) -> Batch:
        first, assignment.position = assignment.position, position
        return Batch.decode(records, assignment.key, first=first, next=position, chat=assignment.chat, max_bytes=self._message_bytes)

    def _reconcile(self, consumer: Consumer) -> None:
        """Bring the Consumer's assignment one step closer to what is wanted."""
        names: set[PartitionName] = set()
        while self._changed and len(names) < CHANGES_A_ROUND:
            names.add(self._changed.popleft())
        changes = [(partition_name, self._assigned.get(partition_name), self._wanted.get(partition_name)) for partition_name in names]
        changes = [(partition_name, old, new) for partition_name, old, new in changes if old is not new]
        removed = [TopicPartition(*partition_name) for partition_name, old, _ in changes if old is not None]
        # With the epoch the Consumer validates its position when the leader changes, even if it has read nothing.
        added = [TopicPartition(*name, new.start, leader_epoch=new.epoch) for name, _, new in changes if new is not None]
        if removed:
            consumer.incremental_unassign(removed)
        if added:
            consumer.incremental_assign(added)
        for partition_name, _, new in changes:
            if new is None:
                del self._assigned[partition_name]
            else:
                self._assigned[partition_name] = new
        self._look_up(consumer, {(new.key.topic, new.key.topic_id) for _, _, new in changes if new is not None})

    def _look_up(self, consumer: Consumer, topics: set[tuple[str, str]]) -> None:
        """Make the Consumer look up these topics' leaders at once instead of later.

        It asks any connected broker; if that one hangs, it must be made to ask again.
        """
        now = time.monotonic()
        for topic in topics:
            if now - self._known.get(topic, -METADATA_KNOWN_SECONDS) >= METADATA_KNOWN_SECONDS:
                self._unknown[topic] = METADATA_TRIES
        if not self._unknown or (not topics and now - self._looked_up < METADATA_AGAIN_SECONDS):
            return
        self._looked_up = now
        unknown = list(self._unknown)
        if len(self._known) > 10 * CHANGES_A_ROUND:
            self._known.clear()
        self._known.update(dict.fromkeys(unknown, now))
        self._unknown = {topic: tries - 1 for topic, tries in self._unknown.items() if tries > 1}
        with suppress(KafkaException):  # no broker has answered in time
            if len(unknown) == 1:
                consumer.list_topics(unknown[0][0], timeout=METADATA_SECONDS)
            else:
                # A listing cannot be limited to some topics, and one of all takes longer the more there are (120 ms at 8,000). This call,
                # whatever it returns, makes librdkafka look up the leaders of these topics with one request.
                consumer.offsets_for_times([TopicPartition(topic, 0, OFFSET_END) for topic, _ in unknown], timeout=METADATA_SECONDS)
            self._unknown = {}


def _positions(consumer: Consumer, names: Iterable[PartitionName]) -> Iterator[tuple[PartitionName, int]]:
    """Yield the Consumer's positions; negative before the first record."""
    for found in consumer.position([TopicPartition(*partition_name) for partition_name in names]):
        yield (found.topic, found.partition), found.offset
