"""The topics of a world: what is produced, trimmed and recreated, and how far readers may see."""

from __future__ import annotations

from collections import Counter

from tests.support.brokers import Broker, KafkaCluster, Transaction
from tests.support.chats import Chats, message
from tests.support.checker import Lane, Ledger, Record
from tests.support.steady_producer import identity_told

PARTITIONS = 4  # at most; all of them on the embedded broker
PADDING = "x" * 1000


class Topics:
    """The topics of the chats, and how far their readers may see.

    Attributes:
        ledger: what was produced in this example.
        happened: how often what was done, in all examples.
    """

    def __init__(self, broker: Broker, chats: Chats) -> None:
        self.ledger = Ledger()
        self.happened: Counter[str] = Counter()
        self._broker = broker
        self._names = chats
        self._number = 0
        self._topics: dict[str, list[Lane]] = {}
        self._ends: dict[Lane, int] = {}
        self._transaction: Transaction | None = None
        self._pending: list[tuple[Lane, int, Record]] = []  # of partitions with an open transaction: readers do not see them
        self._open_from: dict[Lane, int] = {}

    def forget_topics(self) -> None:
        """Begin with none; those that there are stay on the broker, under names that are not used again."""
        self.ledger, self._topics, self._ends = Ledger(), {}, {}

    def create(self, chat: str, partitions: int) -> None:
        """Make the topic of a chat; on the embedded broker it has four partitions whatever is asked."""
        identity = identity_told(self._broker.create_topic(self._names.topic(chat), partitions))
        count = PARTITIONS if self._broker.embedded else partitions
        self._appear(chat, [Lane(chat, partition, identity) for partition in range(count)])

    def exists(self, chat: str) -> bool:
        """Whether a chat has a topic."""
        return chat in self._topics

    def partitions(self, chat: str) -> int:
        """Return how many a chat has."""
        return len(self._topics[chat])

    def add_partition(self, chat: str) -> None:
        """Add one."""
        self.happened["add_partition"] += 1
        lanes = self._topics[chat]
        self._kafka.add_partitions(self._names.topic(chat), len(lanes) + 1)
        self._appear(chat, [Lane(chat, len(lanes), lanes[0].topic)])

    def recreate(self, chat: str, partitions: int) -> None:
        """Delete a topic, and make one of the same name."""
        self.happened["recreate"] += 1
        old = self._topics.pop(chat)
        self._kafka.delete_topic(self._names.topic(chat))
        self.ledger.deleted(chat, old[0].topic)
        for lane in old:
            self._ends.pop(lane)
        self.create(chat, partitions)

    def produce(self, chat: str, partition: int, count: int, *, tag: str | None = None, large: bool = False) -> None:
        """Produce this many messages."""
        self.happened["produce"] += 1
        lane = self._topics[chat][partition % len(self._topics[chat])]
        numbers = range(self._number, self._number + count)
        self._number += count
        values = [message(f"{number} {PADDING if large else ''}", tag=tag) for number in numbers]
        records = self._broker.produce_many(self._names.topic(chat), values, partition=lane.partition)
        for number, record in zip(numbers, records, strict=True):
            self._note(lane, record.offset, Record(number, tag=tag))

    def in_transaction(self, chat: str, partition: int, count: int) -> None:
        """Produce within the transaction that is open, or begin one."""
        self.happened["in_transaction"] += 1
        lane = self._topics[chat][partition % len(self._topics[chat])]
        self._transaction = self._transaction or self._kafka.transaction()
        for number in range(self._number, self._number + count):
            record = self._transaction.produce(self._names.topic(chat), message(f"{number} "), partition=lane.partition)
            self._open_from.setdefault(lane, record.offset)
            self._pending.append((lane, record.offset, Record(number, committed=False)))  # the end decides whether it counts
        self._number += count

    @property
    def transaction_is_open(self) -> bool:
        return self._transaction is not None

    def end_transaction(self, *, commit: bool) -> None:
        """Commit or abort the transaction that is open."""
        self.happened["end_transaction"] += 1
        assert self._transaction is not None
        (self._transaction.commit if commit else self._transaction.abort)()
        self._transaction, pending = None, self._pending
        for lane in self._open_from:
            self._ends[lane] = self._kafka.offsets(self._names.topic(lane.chat), lane.partition).last_stable
        self._pending, self._open_from = [], {}
        for lane, offset, record in pending:
            self.ledger.produced(lane, offset, record._replace(committed=commit or record.committed))

    def trim(self, chat: str, partition: int, share: float) -> None:
        """Delete a share of what a partition has."""
        self.happened["trim"] += 1
        lane = self._topics[chat][partition % len(self._topics[chat])]
        before = int(self._end(lane) * share)
        if before:
            self.ledger.trimmed(lane, self._kafka.delete_records(self._names.topic(chat), lane.partition, before))

    # --- inside

    @property
    def _kafka(self) -> KafkaCluster:
        assert isinstance(self._broker, KafkaCluster)
        return self._broker

    def _appear(self, chat: str, lanes: list[Lane]) -> None:
        """Partitions are there that were not."""
        self._topics.setdefault(chat, []).extend(lanes)
        self._ends.update(dict.fromkeys(lanes, 0))

    def _end(self, lane: Lane) -> int:
        """Return the last stable offset."""
        return self._open_from.get(lane, self._ends[lane])

    def _note(self, lane: Lane, offset: int, record: Record) -> None:
        if lane in self._open_from:
            self._pending.append((lane, offset, record))  # readers do not see it before the transaction ends
        else:
            self._ends[lane] = offset + 1
            self.ledger.produced(lane, offset, record)
