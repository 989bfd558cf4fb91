"""Brokers for tests: real Kafka on loopback, to be killed, frozen and started again, or librdkafka's mock cluster."""

from __future__ import annotations

import base64
import contextlib
import signal
import uuid
from typing import TYPE_CHECKING, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewPartitions, NewTopic

from .broker_client import ANSWER_SECONDS, Broker, Offsets, PublishedRecord, StoredRecord, produce_records, wait_until
from .kafka_distribution import kafka_distribution
from .kafka_node import QUICK_JAVA, START_SECONDS, KafkaNode, broker_properties
from .processes import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

__all__ = [
    "Broker",
    "EmbeddedBroker",
    "KafkaCluster",
    "Offsets",
    "PublishedRecord",
    "StoredRecord",
    "Transaction",
    "embedded_broker",
    "kafka_cluster",
    "started",
]


@contextlib.contextmanager
def kafka_cluster(
    nodes: int = 1,
    heap_mb: int = 512,
    *,
    properties: Mapping[str, str | int | float | bool] | None = None,
    java_options: Sequence[str] | None = None,
) -> Iterator[KafkaCluster]:
    """Run real Kafka brokers while the block runs.

    Args:
        nodes: how many; with 3, topics have three replicas of which two must be in sync.
        heap_mb: the heap of each; 512 is enough for some hundred partitions, thousands need 1536.
        properties: further broker settings, or other values for those set here.
        java_options: for the JVM, instead of those that make it start quickly; for benchmarks.
    """
    distribution = kafka_distribution()
    options = (f"-Xms{min(heap_mb, 128)}m", f"-Xmx{heap_mb}m", *(QUICK_JAVA if java_options is None else java_options))
    with temporary_folder("kafka-") as folder:
        made = {n: KafkaNode(n, folder / f"node-{n}", distribution=distribution, options=options) for n in range(1, nodes + 1)}
        with started(made, lambda node: broker_properties(node, made, properties or {})) as cluster:
            yield cluster


@contextlib.contextmanager
def started(
    nodes: dict[int, KafkaNode], properties: Callable[[KafkaNode], Mapping[str, str | int | float | bool]]
) -> Iterator[KafkaCluster]:
    """Run nodes as one new cluster while the block runs.

    Args:
        nodes: by their ids; their folders are empty.
        properties: returns the settings of each.
    """
    cluster = KafkaCluster(nodes, properties)
    try:
        cluster.form()
        yield cluster
    finally:
        cluster.close()
        for node in nodes.values():
            node.end(kill=True)  # nothing in the folder is needed any more


@contextlib.contextmanager
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """Run librdkafka's mock cluster in this process while the block runs."""
    # The cluster lives in the client that asked for it, and ends with it.
    owner = Consumer({"group.id": "owner", "client.id": "test-embedded-broker", "test.mock.num.brokers": 1, "log_level": 3})
    try:
        brokers = owner.list_topics(timeout=ANSWER_SECONDS).brokers.values()
        broker = EmbeddedBroker(",".join(f"{node.host}:{node.port}" for node in brokers))
        try:
            broker.connect()
            yield broker
        finally:
            broker.close()
    finally:
        owner.close()


class EmbeddedBroker(Broker):
    """The mock cluster: topics have four partitions, no ids, and are never deleted; transactions hardly work."""

    PARTITIONS = 4

    embedded = True

    def create_topic(self, name: str, partitions: int = 1) -> str:
        """Make a topic, which has four partitions here, and return "" for an identity.

        Args:
            name: of the topic.
            partitions: how many are needed.
        """
        if partitions > self.PARTITIONS:
            raise ValueError(f"{name} is to have {partitions} partitions; on the embedded broker all topics have {self.PARTITIONS}")
        self.meet(name)
        return ""


class KafkaCluster(Broker):
    """Real brokers, nodes 1 to n, each broker and controller in one."""

    embedded = False

    def __init__(self, nodes: Mapping[int, KafkaNode], properties: Callable[[KafkaNode], Mapping[str, str | int | float | bool]]) -> None:
        super().__init__(",".join(node.address for node in nodes.values()))
        self._nodes = nodes
        self._properties = properties

    # --- nodes

    def form(self) -> None:
        """Form a new cluster, without any topics, of nodes that do not run."""
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        for node in self._nodes.values():
            node.format(cluster_id, self._properties(node))
            node.start()
        self.wait_ready()
        self.connect()

    def replace(self) -> None:
        """Replace the cluster at the same addresses with another one without topics. Takes some seconds."""
        for number in self._nodes:
            self.kill(number)
        with self._lock:
            self._renew_producer()  # the earlier one would go on asking for topics by their names, and so have them made
            self.form()

    def kill(self, node: int = 1) -> None:
        """End a node as a power failure does (SIGKILL)."""
        self._nodes[node].end(kill=True)

    def stop(self, node: int = 1) -> None:
        """End a node as an operator does (SIGTERM): it hands its partitions over first. Takes a second or two."""
        self._nodes[node].end(kill=False)

    def start(self, node: int = 1, *, wait: bool = True) -> None:
        """Start a node that was killed or stopped, with what it had. Takes some seconds.

        Args:
            node: which.
            wait: return once the cluster is ready, replicas in sync.
        """
        self._nodes[node].start()
        if wait:
            self.wait_ready()

    def freeze(self, node: int = 1) -> None:
        """Let a node hang: its connections stay open, and nothing comes (SIGSTOP)."""
        self._nodes[node].signal(signal.SIGSTOP)

    def thaw(self, node: int = 1) -> None:
        """Let a frozen node go on."""
        self._nodes[node].signal(signal.SIGCONT)

    def mend(self) -> None:
        """Thaw frozen nodes, start stopped ones, and return once the cluster is ready."""
        for number, node in self._nodes.items():
            if node.running:
                self.thaw(number)
            else:
                self.start(number, wait=False)
        self.wait_ready()

    @property
    def running(self) -> frozenset[int]:
        """The nodes whose process lives."""
        return frozenset(number for number, node in self._nodes.items() if node.running)

    def leader(self, topic: str, partition: int = 0) -> int:
        """Return the leader of a partition; -1 if there is none."""
        return self.leaders(topic)[partition]

    def leaders(self, topic: str) -> dict[int, int]:
        """Return partition -> its leader; -1 if there is none."""
        with self._lock:
            found = self._asker.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic].partitions
        return {number: partition.leader for number, partition in found.items()}

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until every running node answers and every partition has its leader and all running replicas in sync."""
        running = self.running
        why = "no answer"

        def ready() -> bool:
            nonlocal why
            for number in running:
                if not self._nodes[number].running:
                    raise RuntimeError(f"node {number} of Kafka ended by itself; the end of its log:\n{self._nodes[number].last_log()}")
            with self._lock:
                listing = self._asker.list_topics(timeout=2)
            if set(listing.brokers) != running:
                why = f"the brokers that are there are {sorted(listing.brokers)}"
                return False
            for name, topic in listing.topics.items():
                for number, partition in topic.partitions.items():
                    if partition.leader not in running or not set(partition.replicas) & running <= set(partition.isrs):
                        why = f"{name}/{number} has leader {partition.leader}, replicas {partition.replicas}, in sync {partition.isrs}"
                        return False
            return True

        try:
            wait_until(ready, seconds, f"Kafka's nodes {sorted(running)} to be ready")
        except TimeoutError as error:
            logs = "\n".join(f"--- node {number}\n{self._nodes[number].last_log()}" for number in sorted(running))
            raise TimeoutError(f"{error}: {why}; the ends of their logs:\n{logs}") from error

    # --- topics

    def create_topic(
        self, name: str, partitions: int = 1, *, replication: int | None = None, nodes: Sequence[int] = (), **config: str | int
    ) -> str:
        """Make a topic, and return its id once it can be produced to and read.

        Args:
            name: of the topic.
            partitions: how many.
            replication: None: the cluster's default.
            nodes: which have replicas, the one that is to lead first; none: the cluster chooses.
            config: of the topic, with `_` for `.`: `retention_ms=1000`, `cleanup_policy="compact"`.
        """
        if nodes:
            topic = NewTopic(name, partitions, replica_assignment=[list(nodes)] * partitions, config=_dotted(config))
        else:
            topic = NewTopic(name, partitions, -1 if replication is None else replication, config=_dotted(config))
        self._admin.create_topics([topic], operation_timeout=ANSWER_SECONDS)[name].result()
        self._wait_usable(name, partitions)
        return self.topic_id(name)

    def delete_topic(self, name: str) -> None:
        """Delete a topic, and return once no broker lists it."""
        with self._lock:
            # It would go on asking for the topic by its name, and so have it made again.
            self._renew_producer()
            self._admin.delete_topics([name], operation_timeout=ANSWER_SECONDS)[name].result()
            # Any broker may answer, and they learn of it one after the other.
            answers = [False]

            def gone() -> bool:
                answers.append(name not in self.topics())
                return all(answers[-3 * len(self._nodes) :])

            wait_until(gone, ANSWER_SECONDS, f"{name} to be gone")
            self.connect()

    def add_partitions(self, name: str, total: int) -> None:
        """Extend a topic to `total` partitions, and return once they can be used."""
        self._admin.create_partitions([NewPartitions(name, total)], operation_timeout=ANSWER_SECONDS)[name].result()
        self._met.discard(name)  # the producer has to look at it again
        self._wait_usable(name, total)

    def set_config(self, name: str, **config: str | int) -> None:
        """Change a topic's configuration, with `_` for `.` in the names."""
        entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in _dotted(config).items()]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        self._admin.incremental_alter_configs([resource], request_timeout=ANSWER_SECONDS)[resource].result()

    def config(self, name: str) -> dict[str, str]:
        """Return a topic's configuration, defaults included."""
        resource = ConfigResource(ResourceType.TOPIC, name)
        entries = self._admin.describe_configs([resource], request_timeout=ANSWER_SECONDS)[resource].result()
        return {key: entry.value for key, entry in entries.items()}

    def topic_id(self, name: str) -> str:
        """Return the identity of a topic; any broker may answer, and one may not have heard yet of a topic that was made a moment ago."""
        found: list[str] = []

        def told() -> bool:
            described = self._admin.describe_topics(TopicCollection([name]), request_timeout=ANSWER_SECONDS)[name]
            error = described.exception()
            if isinstance(error, KafkaException) and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return False
            found.append(str(described.result().topic_id))
            return True

        wait_until(told, ANSWER_SECONDS, f"the id of {name}")
        return found[0]

    def delete_records(self, topic: str, partition: int, before: int) -> int:
        """Delete the records below an offset, like retention; return the first offset that still exists."""
        where = TopicPartition(topic, partition, before)
        return int(self._admin.delete_records([where], request_timeout=ANSWER_SECONDS)[where].result().low_watermark)

    # --- transactions

    def transaction(self) -> Transaction:
        """Begin a transaction; at the end of a `with` block it is committed, or aborted where an exception leaves it."""
        return Transaction(self)

    def _wait_usable(self, name: str, partitions: int) -> None:
        def usable() -> bool:
            if self.topics().get(name) != partitions:
                return False
            for partition in range(partitions):
                self.offsets(name, partition)
            return True

        wait_until(usable, ANSWER_SECONDS, f"{name} to be usable")


class Transaction:
    """Records that count together, or not at all. No other transaction may be open on the same partitions when it ends."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        config = {"transactional.id": f"test-{uuid.uuid4()}", "linger.ms": 0, "transaction.timeout.ms": 60000}
        self._producer = Producer({**cluster.client("transaction"), **config})
        self._last: dict[tuple[str, int], int] = {}
        self._open = True
        self._producer.init_transactions(ANSWER_SECONDS)
        self._producer.begin_transaction()

    def produce(
        self, topic: str, value: bytes | str | None, *, key: bytes | str | None = None, partition: int | None = None
    ) -> PublishedRecord:
        """Put a record into the topic; consumers that read committed records see it, and all after it, at the end only."""
        if partition is None or (topic, partition) not in self._last:  # it may have been added a moment ago
            self._producer.list_topics(topic, timeout=ANSWER_SECONDS)
        record = produce_records(self._producer, topic, [value], key=key, partition=partition)[0]
        self._last[topic, record.partition] = record.offset
        return record

    def commit(self) -> None:
        """Commit them, and return once readers see them."""
        self._end(self._producer.commit_transaction)

    def abort(self) -> None:
        """Abort them, and return once readers see what comes after them."""
        self._end(self._producer.abort_transaction)

    def _end(self, end: Callable[[float], None]) -> None:
        self._open = False
        end(ANSWER_SECONDS)
        # The answer comes before the markers are in the partitions.
        for (topic, partition), offset in self._last.items():

            def ended(topic: str = topic, partition: int = partition, offset: int = offset) -> bool:
                return self._cluster.offsets(topic, partition).last_stable > offset

            wait_until(ended, ANSWER_SECONDS, f"the transaction's marker in {topic}/{partition}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._open:
            if error is None:
                self.commit()
            else:
                self.abort()


def _dotted(config: Mapping[str, str | int]) -> dict[str, str]:
    return {name.replace("_", "."): str(value) for name, value in config.items()}
