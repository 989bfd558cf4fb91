"""Kafka for tests: real brokers on loopback, to be killed, frozen and started again."""

from __future__ import annotations

import base64
import contextlib
import random
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType

from .kafka_distribution import KafkaDistribution, kafka_distribution
from .processes import end_process, last_lines, start_process, temporary_folder

T = TypeVar("T")

START_SECONDS = 60.0  # a broker is up in 3 s; a shared machine with two cores takes its time
ANSWER_SECONDS = 20.0
_FIRST_PORT, _LAST_PORT = 20000, 32000  # below the ephemeral ports, so nobody's outgoing connection sits on one after a kill


class PublishedRecord(NamedTuple):
    """Where a record was put; the broker has acknowledged it with acks=all."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offsets:
    """The marks of one partition.

    Attributes:
        first: the first offset that is left.
        last_stable: below it everything is committed or aborted.
        high: below it everything is replicated.
    """

    first: int
    last_stable: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A committed record as a consumer sees it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class Broker:
    """What a test does with Kafka as others use it: it produces, and looks.

    Every method blocks for as long as the brokers need, a few milliseconds where they are well. In a trio test call the
    quick ones as they are; what takes longer (starting a node) goes through `trio.to_thread.run_sync`.
    """

    def __init__(self, bootstrap: str, *, embedded: bool) -> None:
        self.bootstrap = bootstrap
        self.embedded = embedded
        self._producer: Producer | None = None
        self._producer_knows: set[str] = set()
        self._asker: Consumer | None = None
        self._admin: AdminClient | None = None
        self._lock = threading.RLock()  # tests may produce from several threads

    def close(self) -> None:
        """Let go of all clients."""
        with self._lock:
            self._drop_producer()
            if self._asker is not None:
                self._asker.close()
            self._asker = self._admin = None

    # --- producing

    def produce(
        self,
        topic: str,
        value: bytes | str | None,
        *,
        key: bytes | str | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
        timestamp_ms: int | None = None,
    ) -> PublishedRecord:
        """Put one record into a topic, and return once it is acknowledged.

        Args:
            topic: made by the broker if it is missing, as brokers do by default; `create_topic` says how it should be.
            value: None is a tombstone.
            key: decides the partition where none is given.
            partition: which.
            headers: of the record.
            timestamp_ms: Unix time; None: now.
        Raises:
            KafkaException: no acknowledgement in time, or the brokers refused it.
        """
        return self.produce_many(topic, [value], key=key, partition=partition, headers=headers, timestamp_ms=timestamp_ms)[0]

    def produce_many(
        self,
        topic: str,
        values: Iterable[bytes | str | None],
        *,
        key: bytes | str | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
        timestamp_ms: int | None = None,
    ) -> list[PublishedRecord]:
        """Put records into a topic in this order, and return once all are acknowledged."""
        with self._lock:
            if self._producer is None:
                config = {"acks": "all", "linger.ms": 0, "enable.idempotence": True, "message.timeout.ms": int(ANSWER_SECONDS * 1000)}
                self._producer = Producer({**self._client("producer"), **config})
                self._producer_knows.clear()
            if topic not in self._producer_knows:
                # By itself it looks up new topics once a second.
                self._producer.list_topics(topic, timeout=ANSWER_SECONDS)
                self._producer_knows.add(topic)
            return _produce(self._producer, topic, values, key=key, partition=partition, headers=headers, timestamp_ms=timestamp_ms)

    # --- looking

    def topics(self) -> dict[str, int]:
        """Return topic -> number of partitions, of all topics that exist. Creates none."""
        with self._lock:
            return {name: len(topic.partitions) for name, topic in self._ask().list_topics(timeout=ANSWER_SECONDS).topics.items()}

    def offsets(self, topic: str, partition: int = 0) -> Offsets:
        """Return the marks of one partition, as its leader has them now."""
        where = TopicPartition(topic, partition)

        def ask(spec: OffsetSpec, isolation: IsolationLevel) -> int:
            admin = self._admins()
            try:
                return int(admin.list_offsets({where: spec}, isolation_level=isolation, request_timeout=ANSWER_SECONDS)[where].result().offset)
            except KafkaException:
                # It goes by the partitions and leaders that it has heard of; a full listing tells it of all there are, and creates none.
                admin.list_topics(timeout=ANSWER_SECONDS)
                return int(admin.list_offsets({where: spec}, isolation_level=isolation, request_timeout=ANSWER_SECONDS)[where].result().offset)

        return Offsets(
            first=ask(OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED),
            last_stable=ask(OffsetSpec.latest(), IsolationLevel.READ_COMMITTED),
            high=ask(OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED),
        )

    def records(self, topic: str) -> list[StoredRecord]:
        """Return all committed records of a topic, partition by partition."""
        found = []
        reader = Consumer({**self._client("reader"), "group.id": f"reader-{uuid.uuid4()}", "enable.partition.eof": True, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 10})
        try:
            for partition in range(self.topics().get(topic, 0)):
                if (start := self.offsets(topic, partition).first) >= (end := self.offsets(topic, partition).last_stable):
                    continue
                reader.assign([TopicPartition(topic, partition, start)])
                deadline = time.monotonic() + ANSWER_SECONDS
                while time.monotonic() < deadline:
                    if (message := reader.poll(1)) is None:
                        continue
                    if (error := message.error()) is None:
                        found.append(_stored(message))
                    elif error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    if reader.position([TopicPartition(topic, partition)])[0].offset >= end:
                        break
                else:
                    raise TimeoutError(f"{topic}/{partition} was not read to its end, offset {end}, within {ANSWER_SECONDS:.0f} s")
        finally:
            reader.close()
        return found

    # --- clients

    def _client(self, role: str) -> dict[str, str | int | bool | float]:
        return {
            "bootstrap.servers": self.bootstrap,
            "client.id": f"test-{role}",
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "topic.metadata.refresh.fast.interval.ms": 50,
            "log_level": 0,  # brokers are killed on purpose here; what matters is raised
        }

    def _ask(self) -> Consumer:
        # A Consumer, for a Producer and an AdminClient that ask for a topic by its name create it.
        if self._asker is None:
            self._asker = Consumer({**self._client("asker"), "group.id": f"asker-{uuid.uuid4()}"})
        return self._asker

    def _admins(self) -> AdminClient:
        with self._lock:
            if self._admin is None:
                self._admin = AdminClient({**self._client("admin"), "socket.timeout.ms": int(ANSWER_SECONDS * 1000)})
            return self._admin

    def _drop_producer(self) -> None:
        if self._producer is not None:
            self._producer.flush(ANSWER_SECONDS)
            self._producer = None


class KafkaCluster(Broker):
    """Real brokers, nodes 1 to n, each broker and controller in one."""

    def __init__(self, nodes: Mapping[int, _Node]) -> None:
        super().__init__(",".join(node.address for node in nodes.values()), embedded=False)
        self._nodes = nodes

    # --- nodes

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

    @property
    def running(self) -> frozenset[int]:
        """The nodes whose process lives."""
        return frozenset(number for number, node in self._nodes.items() if node.running)

    def leader(self, topic: str, partition: int = 0) -> int:
        """Return the node that leads a partition; -1 where none does."""
        with self._lock:
            return int(self._ask().list_topics(topic, timeout=ANSWER_SECONDS).topics[topic].partitions[partition].leader)

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
                listing = self._ask().list_topics(timeout=2)
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
            _wait(ready, seconds, f"Kafka's nodes {sorted(running)} to be ready")
        except TimeoutError as error:
            logs = "\n".join(f"--- node {number}\n{self._nodes[number].last_log()}" for number in sorted(running))
            raise TimeoutError(f"{error}: {why}; the ends of their logs:\n{logs}") from error

    # --- topics

    def create_topic(self, name: str, partitions: int = 1, *, replication: int | None = None, **config: str | int) -> str:
        """Make a topic, and return its id once it can be produced to and read.

        Args:
            name: of the topic.
            partitions: how many.
            replication: None: the cluster's default.
            config: of the topic, with `_` for `.`: `retention_ms=1000`, `cleanup_policy="compact"`.
        """
        topic = NewTopic(name, partitions, -1 if replication is None else replication, config=_dotted(config))
        self._admins().create_topics([topic], operation_timeout=ANSWER_SECONDS)[name].result()
        self._wait_usable(name, partitions)
        return self.topic_id(name)

    def delete_topic(self, name: str) -> None:
        """Delete a topic, and return once no broker lists it."""
        with self._lock:
            # It would go on asking for the topic by its name, and so have it made again.
            self._drop_producer()
            self._admins().delete_topics([name], operation_timeout=ANSWER_SECONDS)[name].result()
            # Any broker may answer, and they learn of it one after the other.
            answers = [False]

            def gone() -> bool:
                answers.append(name not in self.topics())
                return all(answers[-3 * len(self._nodes) :])

            _wait(gone, ANSWER_SECONDS, f"{name} to be gone")

    def add_partitions(self, name: str, total: int) -> None:
        """Make a topic have `total` partitions, and return once they can be used."""
        self._admins().create_partitions([NewPartitions(name, total)], operation_timeout=ANSWER_SECONDS)[name].result()
        self._wait_usable(name, total)

    def set_config(self, name: str, **config: str | int) -> None:
        """Change a topic's configuration, with `_` for `.` in the names."""
        entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in _dotted(config).items()]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        self._admins().incremental_alter_configs([resource], request_timeout=ANSWER_SECONDS)[resource].result()

    def config(self, name: str) -> dict[str, str]:
        """Return a topic's configuration, defaults included."""
        resource = ConfigResource(ResourceType.TOPIC, name)
        return {key: entry.value for key, entry in self._admins().describe_configs([resource], request_timeout=ANSWER_SECONDS)[resource].result().items()}

    def topic_id(self, name: str) -> str:
        """Return the identity of a topic."""
        return str(self._admins().describe_topics(TopicCollection([name]), request_timeout=ANSWER_SECONDS)[name].result().topic_id)

    def delete_records(self, topic: str, partition: int, before: int) -> int:
        """Drop what a partition holds below an offset, as retention does; return the first offset that is left."""
        where = TopicPartition(topic, partition, before)
        return int(self._admins().delete_records([where], request_timeout=ANSWER_SECONDS)[where].result().low_watermark)

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

        _wait(usable, ANSWER_SECONDS, f"{name} to be usable")


class Transaction:
    """Records that count together, or not at all."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        self._producer = Producer({**cluster._client("transaction"), "transactional.id": f"test-{uuid.uuid4()}", "linger.ms": 0, "transaction.timeout.ms": 60000})
        self._last: dict[tuple[str, int], int] = {}
        self._open = True
        self._producer.init_transactions(ANSWER_SECONDS)
        self._producer.begin_transaction()

    def produce(self, topic: str, value: bytes | str | None, *, key: bytes | str | None = None, partition: int | None = None) -> PublishedRecord:
        """Put a record into the topic; consumers that read committed records see it, and all after it, at the end only."""
        if not self._last:
            self._producer.list_topics(topic, timeout=ANSWER_SECONDS)
        record = _produce(self._producer, topic, [value], key=key, partition=partition)[0]
        self._last[topic, record.partition] = record.offset
        return record

    def commit(self) -> None:
        """Make them count, and return once readers see them."""
        self._end(self._producer.commit_transaction)

    def abort(self) -> None:
        """Make them nothing, and return once readers see what comes after them."""
        self._end(self._producer.abort_transaction)

    def _end(self, end: Callable[[float], None]) -> None:
        self._open = False
        end(ANSWER_SECONDS)
        # The answer comes before the markers are in the partitions.
        for (topic, partition), offset in self._last.items():

            def ended(topic: str = topic, partition: int = partition, offset: int = offset) -> bool:
                return self._cluster.offsets(topic, partition).last_stable > offset

            _wait(ended, ANSWER_SECONDS, f"the transaction's marker in {topic}/{partition}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._open:
            if error is None:
                self.commit()
            else:
                self.abort()


class _Node:
    """One process of Kafka, with its ports, its folder and its log."""

    def __init__(self, number: int, folder: Path, *, distribution: KafkaDistribution, options: tuple[str, ...]) -> None:
        self.number = number
        self.folder = folder
        self.port, self.controller_port = _free_port(), _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = folder / "kafka.log"
        self._distribution = distribution
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def format(self, cluster_id: str, properties: Mapping[str, str | int | bool]) -> None:
        """Write its configuration and prepare its folder."""
        self.folder.mkdir()
        (self.folder / "log4j2.properties").write_text(_LOG4J)
        text = "".join(f"{key}={str(value).lower() if isinstance(value, bool) else value}\n" for key, value in properties.items())
        (self.folder / "server.properties").write_text(text)
        command = self._distribution.command(
            "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(self.folder / "server.properties"), options=("-Xmx128m", *_QUICK_JAVA)
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_SECONDS)
        if done.returncode:
            raise RuntimeError(f"Kafka's storage tool failed:\n{done.stdout}{done.stderr}")

    def start(self) -> None:
        """Start it; it is ready some seconds later."""
        if self.running:
            raise RuntimeError(f"node {self.number} runs already")
        command = self._distribution.command(
            "kafka.Kafka",
            str(self.folder / "server.properties"),
            options=(*self._options, f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"),
        )
        with self.log.open("ab") as log:
            self._process = start_process(command, stdout=log, stderr=subprocess.STDOUT)

    def end(self, *, kill: bool) -> None:
        """End it and wait for its end; nothing where it does not run."""
        if self._process is not None:
            end_process(self._process, kill=kill)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, which has to run."""
        if self._process is None:
            raise RuntimeError(f"node {self.number} does not run")
        self._process.send_signal(number)

    def last_log(self) -> str:
        return last_lines(self.log)


@contextlib.contextmanager
def kafka_cluster(
    nodes: int = 1, heap_mb: int = 512, *, properties: Mapping[str, str | int | bool] | None = None, java_options: Sequence[str] | None = None
) -> Iterator[KafkaCluster]:
    """Run real Kafka brokers for as long as the block lasts.

    Args:
        nodes: how many; with 3, topics have three replicas of which two must be in sync.
        heap_mb: of memory for each; 512 is enough for some hundred partitions, thousands need 1536.
        properties: further broker settings, or other values for those that are set here.
        java_options: for the Java machine, instead of those that make it start quickly; for benchmarks.
    """
    distribution = kafka_distribution()
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    options = (f"-Xms{min(heap_mb, 128)}m", f"-Xmx{heap_mb}m", *(_QUICK_JAVA if java_options is None else java_options))
    with temporary_folder("kafka-") as folder:
        made = {n: _Node(n, folder / f"node-{n}", distribution=distribution, options=options) for n in range(1, nodes + 1)}
        cluster = KafkaCluster(made)
        try:
            for node in made.values():
                node.format(cluster_id, _properties(node, made, properties or {}))
                node.start()
            cluster.wait_ready()
            yield cluster
        finally:
            cluster.close()
            for node in made.values():
                node.end(kill=True)  # nothing in the folder is needed any more


# For a process that lives for a minute: the quick compiler alone, and a collector without threads of its own.
_QUICK_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Djava.awt.headless=true")

_LOG4J = """\
status = error
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d %p %m (%c{1})%n
rootLogger.level = warn
rootLogger.appenderRef.stdout.ref = stdout
"""


def _properties(node: _Node, nodes: Mapping[int, _Node], more: Mapping[str, str | int | bool]) -> dict[str, str | int | bool]:
    replicas = min(3, len(nodes))
    in_sync = 2 if replicas == 3 else 1
    return {
        "process.roles": "broker,controller",
        "node.id": node.number,
        "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{other.controller_port}" for n, other in nodes.items()),
        "listeners": f"PLAINTEXT://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(node.folder / "data"),
        # as every broker has it by default: a test that nobody creates topics needs one that would
        "auto.create.topics.enable": True,
        "num.partitions": 1,
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        # what tests wait for, in milliseconds instead of minutes
        "log.retention.ms": -1,
        "log.retention.check.interval.ms": 500,
        "log.initial.task.delay.ms": 500,
        "log.segment.delete.delay.ms": 1000,
        "log.cleaner.backoff.ms": 200,
        "log.cleaner.dedupe.buffer.size": 4 << 20,
        "log.cleaner.min.cleanable.ratio": 0.01,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
        # a killed node is missed after 3 s; less is too little where the machine is busy
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "replica.lag.time.max.ms": 5000,
        "controlled.shutdown.enable": True,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "log.index.size.max.bytes": 1 << 20,
        **more,
    }


def _produce(
    producer: Producer,
    topic: str,
    values: Iterable[bytes | str | None],
    *,
    key: bytes | str | None,
    partition: int | None,
    headers: Sequence[tuple[str, bytes | None]] | None = None,
    timestamp_ms: int | None = None,
) -> list[PublishedRecord]:
    """Produce, wait for all the answers, and return them in the order of `values`."""
    answers: list[PublishedRecord | KafkaError | None] = []
    left = 0

    def answer(place: int) -> Callable[[KafkaError | None, Message], None]:
        def told(error: KafkaError | None, message: Message) -> None:
            nonlocal left
            left -= 1
            answers[place] = error if error is not None else PublishedRecord(message.partition(), message.offset())

        return told

    for place, value in enumerate(values):
        answers.append(None)
        left += 1
        options: dict[str, object] = {} if partition is None else {"partition": partition}
        if timestamp_ms is not None:
            options["timestamp"] = timestamp_ms
        while True:
            try:
                producer.produce(topic, value, key, headers=list(headers) if headers is not None else None, on_delivery=answer(place), **options)
                break
            except BufferError:
                producer.poll(0.1)
    deadline = time.monotonic() + ANSWER_SECONDS + 10
    while left:
        producer.poll(0.2)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{left} of {len(answers)} records for {topic} were not acknowledged within {ANSWER_SECONDS + 10:.0f} s")
    published = []
    for found in answers:
        if not isinstance(found, PublishedRecord):
            raise KafkaException(found)
        published.append(found)
    return published


def _stored(message: Message) -> StoredRecord:
    return StoredRecord(
        partition=message.partition(), offset=message.offset(), key=message.key(), value=message.value(), headers=tuple(message.headers() or ())
    )


def _dotted(config: Mapping[str, str | int]) -> dict[str, str]:
    return {name.replace("_", "."): str(value) for name, value in config.items()}


def _wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Ask again and again until it holds; brokers that do not answer yet are asked again, too."""
    deadline = time.monotonic() + seconds
    error: Exception | None = None
    while True:
        try:
            if condition():
                return
            error = None
        except KafkaException as caught:
            error = caught
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}") from error
        time.sleep(0.02)


_given_ports: set[int] = set()


def _free_port() -> int:
    """Return a port that nobody listens on, and that was not returned before."""
    for _ in range(1000):
        port = random.randrange(_FIRST_PORT, _LAST_PORT)
        if port in _given_ports:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given_ports.add(port)
        return port
    raise RuntimeError(f"no free port between {_FIRST_PORT} and {_LAST_PORT}")
