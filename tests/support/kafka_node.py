"""One process of Kafka: its ports, its folder, its settings, its log."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
from pathlib import Path
from signal import SIGSTOP, Signals
from typing import TYPE_CHECKING, TypeAlias

from .broker_client import wait_until
from .processes import end_process, last_lines, start_process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .kafka_distribution import KafkaDistribution

Properties: TypeAlias = "Mapping[str, str | int | float | bool]"

START_SECONDS = 180.0  # a broker is up in 2 s, three on a busy machine in 20; it ends a hang
_FIRST_PORT, _LAST_PORT = 20000, 32000  # below the ephemeral ports, so nobody's outgoing connection sits on one after a kill

# For a process that lives for a minute: the quick compiler alone, and a collector without threads of its own.
QUICK_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Djava.awt.headless=true")


class KafkaNode:
    """One process of Kafka, with its ports, its folder and its log."""

    def __init__(self, number: int, folder: Path, *, distribution: KafkaDistribution, options: tuple[str, ...]) -> None:
        self.number = number
        self.folder = folder
        self.port, self.controller_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = folder / "kafka.log"
        self._distribution = distribution
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def format(self, cluster_id: str, properties: Properties) -> None:
        """Write its configuration and prepare its folder, which loses what it had."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        (self.folder / "log4j2.properties").write_text(_LOG4J)
        text = "".join(f"{key}={str(value).lower() if isinstance(value, bool) else value}\n" for key, value in properties.items())
        (self.folder / "server.properties").write_text(text)
        # An id may begin with a hyphen, which is a flag where it stands by itself.
        arguments = ("format", f"--cluster-id={cluster_id}", "-c", str(self.folder / "server.properties"))
        command = self._distribution.command("kafka.tools.StorageTool", *arguments, options=("-Xmx128m", *QUICK_JAVA))
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

    def signal(self, number: Signals) -> None:
        """Send a signal to the process, which has to run."""
        if self._process is None:
            raise RuntimeError(f"node {self.number} does not run")
        self._process.send_signal(number)
        if number == SIGSTOP:
            # The kernel takes its time to stop the threads of a process, one after the other; until then they answer.
            wait_until(self._is_stopped, START_SECONDS, f"node {self.number} to be stopped")

    def _is_stopped(self) -> bool:
        assert self._process is not None
        threads = Path(f"/proc/{self._process.pid}/task")
        try:
            states = {(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads.iterdir()}
        except OSError:  # a thread has just ended
            return False
        return states == {"T"}

    def last_log(self) -> str:
        """Return the end of what it logged."""
        return last_lines(self.log)


_LOG4J = """\
status = error
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d %p %m (%c{1})%n
rootLogger.level = warn
rootLogger.appenderRef.stdout.ref = stdout
"""


def broker_properties(node: KafkaNode, nodes: Mapping[int, KafkaNode], more: Properties) -> dict[str, str | int | float | bool]:
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


_claims: list[socket.socket] = []


def free_port() -> int:
    """Return a port that nobody listens on, and that no test run on this machine gets for as long as this one lasts."""
    for _ in range(1000):
        port = random.randrange(_FIRST_PORT, _LAST_PORT)
        # A broker's port is free while it is killed. A name that begins with a zero byte is no file: it goes with the process.
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0kafka_chat test port {port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port
    raise RuntimeError(f"no free port between {_FIRST_PORT} and {_LAST_PORT}")
