"""Starts the servers that are measured: kafka_chat and its peers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from tests.support.kafka_node import free_port
from tests.support.processes import end_process, last_lines, start_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parent.parent
LOCALHOST = ROOT / "tests" / "support" / "localhost"
CERTIFICATE = ("--certfile", str(LOCALHOST / "certificate.pem"), "--keyfile", str(LOCALHOST / "key.pem"))
START_SECONDS = 30.0
SETTLE_SECONDS = 2.0  # for a consumer to join its group
PING_SECONDS = 25  # the defaults of kafka_chat and of Centrifugo
PONG_SECONDS = 8  # Centrifugo's default; kafka_chat's is 10

PEERS = {
    "kafka_chat": "this project",
    "kafka_chat_v1": "this project, clients of kafka-chat.v1",
    "kafka_chat_workers": "this project, two workers",
    "kafka_chat_tls": "this project under the plain hypercorn, with a certificate",
    "centrifugo": "Centrifugo, in Go: a Kafka consumer for the process, a channel for each chat",
    "seed_shared": "FastAPI, uvicorn, one aiokafka consumer, a queue per client",
    "seed_stack": "FastAPI, uvicorn, an aiokafka consumer per client",
    "seed_replay": "the same, begun at an offset: in `bench.replay` only",
    "floor": "no server: os.write to as many sockets in a bare loop",
}


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves.

    Attributes:
        url: `http://127.0.0.1:port`, or `https:`.
        pid: its process, possibly with children.
    """

    url: str
    pid: int


def peers_python(cache: Path) -> Path:
    """Return a Python with the peers' packages (the dependency group `bench`), installed now if it is not in the cache."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["bench"]
    folder = cache / f"peers-{hashlib.sha256(repr((wanted, sys.version)).encode()).hexdigest()[:12]}"
    complete = folder / "complete"
    if not complete.exists():
        print(f"installing {', '.join(wanted)} into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *wanted], check=True)
        complete.touch()
    return folder / "bin" / "python"


@contextlib.contextmanager
def running(
    peer: str,
    bootstrap: str,
    *,
    logs: Path,
    python: Path | None = None,
    topics: Sequence[str] = (),
    centrifugo: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Run a server while the block runs.

    Args:
        peer: one of `PEERS`.
        bootstrap: the brokers.
        logs: a folder for its output.
        python: a Python with the packages of the peers written in Python.
        topics: the topics that Centrifugo reads; the others know theirs.
        centrifugo: its binary.
        environ: further environment variables: settings of kafka_chat.
    """
    port, log = free_port(), logs / f"{peer}.log"
    if peer == "centrifugo":
        command = [str(centrifugo), "--config", str(_centrifugo_config(bootstrap, topics, port, logs))]
    elif peer == "kafka_chat_tls":
        command = [str(Path(sys.executable).with_name("hypercorn")), "-k", "trio", "--bind", f"127.0.0.1:{port}", *CERTIFICATE]
        command += ["kafka_chat.asgi:app"]
    elif peer == "kafka_chat_ticking":
        command = [sys.executable, "-m", "bench.ticking", bootstrap, str(port), (environ or {})["TICKS"]]
    elif peer.startswith("kafka_chat"):
        workers = "2" if peer == "kafka_chat_workers" else "1"
        command = [str(Path(sys.executable).with_name("kafka-chat")), "serve", "--bootstrap", bootstrap, "--workers", workers]
    else:
        command = [str(python), "-m", "uvicorn", f"{peer}:app", "--log-level", "warning"]
    if peer not in ("centrifugo", "kafka_chat_ticking", "kafka_chat_tls"):
        command += ["--host", "127.0.0.1", "--port", str(port)]
    env = {**os.environ, "BOOT": bootstrap, "KAFKA_CHAT_KAFKA__BOOTSTRAP_SERVERS": bootstrap, **(environ or {})}
    with log.open("ab") as output:
        process = start_process(command, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=ROOT / "bench" / "peers")
    try:
        tls = peer == "kafka_chat_tls"
        _wait_served(process, port, log, tls=tls)
        time.sleep(SETTLE_SECONDS)
        yield Running(f"{'https' if tls else 'http'}://127.0.0.1:{port}", process.pid)
    finally:
        code = end_process(process, seconds=15)
        if code not in (0, -signal.SIGTERM):
            print(f"{peer} ended with {code}; the end of its log:\n{last_lines(log, 20)}", file=sys.stderr)


def _centrifugo_config(bootstrap: str, topics: Sequence[str], port: int, folder: Path) -> Path:
    """Write a configuration in which Centrifugo passes on the values of one-partition topics unchanged, from their ends on."""
    group = f"bench-{port}-{time.monotonic_ns()}"
    # A group without committed offsets begins at the start of the topics, and no setting changes that.
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.list_topics(timeout=30)  # without this it does not find the leaders of new topics
    latest = admin.list_offsets({TopicPartition(topic, 0): OffsetSpec.latest() for topic in topics}, request_timeout=30)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(at.topic, 0, end.result().offset) for at, end in latest.items()], asynchronous=False)
    consumer.close()
    kafka = {
        "brokers": [bootstrap],
        "topics": list(topics),
        "consumer_group": group,
        "publication_data_mode": {"enabled": True, "channels_header": "centrifugo-channels"},
    }
    config = {
        "http_server": {"address": "127.0.0.1", "port": str(port)},
        "health": {"enabled": True},
        "log": {"level": "warn"},
        "usage_stats": {"disabled": True},
        "client": {
            "insecure": True,
            "allow_anonymous_connect_without_token": True,
            "ping_interval": f"{PING_SECONDS}s",
            "pong_timeout": f"{PONG_SECONDS}s",
        },
        "channel": {"without_namespace": {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}},
        "consumers": [{"enabled": True, "name": "chat", "type": "kafka", "kafka": kafka}],
    }
    path = folder / f"centrifugo-{port}.json"
    path.write_text(json.dumps(config))
    return path


def allow_many_files() -> None:
    """Raise the limit of open files to this user's maximum; children inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _wait_served(process: subprocess.Popen[bytes], port: int, log: Path, *, tls: bool) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            if tls:
                return  # it listens
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            if re.match(rb"HTTP/1.1 200", connection.recv(100)):
                return
        time.sleep(0.1)
    raise RuntimeError(f"it did not serve within {START_SECONDS:.0f} s; the end of its log:\n{last_lines(log, 30)}")
