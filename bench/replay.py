"""Measures how fast old messages are read, compared with a peer: `python -m bench.replay [--records N] [--passes N]`.

A million records in one partition; one client reads all of them, a hundred clients read the same range, a hundred clients
read different ranges. kafka_chat in the bare format and in v1, and the seed's stack with a consumer for each client. Every
record that comes is counted; prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

from kafka_chat.chat.resume_cursor import MessageIds
from tests.support.brokers import kafka_cluster

from .processes import cost
from .servers import allow_many_files, peers_python, running

if TYPE_CHECKING:
    from collections.abc import Sequence

TOPIC = "kafka.chat.global"
MARK = b'"chat":"global"'  # once in each delivery
LIMIT_SECONDS = 180.0
CLIENTS = 100
PEERS = ("kafka_chat", "kafka_chat v1", "seed_replay")


@dataclass(frozen=True, slots=True)
class Reader:
    """A client: where it begins, and how many records it reads."""

    offset: int
    records: int


def scenarios(records: int) -> dict[str, list[Reader]]:
    """Return the scenarios: name -> readers."""
    shared, own = records // 50, records // CLIENTS
    return {
        f"1 client, {records:,} records": [Reader(0, records)],
        f"{CLIENTS} clients, the same {shared:,}": [Reader(records - shared, shared)] * CLIENTS,
        f"{CLIENTS} clients, {own:,} each of its own": [Reader(number * own, own) for number in range(CLIENTS)],
    }


def read_all(url: str, paths: Sequence[str], readers: Sequence[Reader]) -> tuple[float, list[int]]:
    """Read as these clients; return the seconds from the first handshake on, and how many records each received."""
    server = urlsplit(url)
    waiting = selectors.DefaultSelector()
    had, left = [0] * len(readers), [b""] * len(readers)
    began = time.monotonic()
    for number, path in enumerate(paths):
        connection = socket.create_connection((server.hostname or "", server.port or 0), timeout=10)
        connection.settimeout(0)
        request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        connection.sendall(f"{request}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        waiting.register(connection, selectors.EVENT_READ, number)
    while waiting.get_map() and time.monotonic() - began < LIMIT_SECONDS:
        for key, _ in waiting.select(1):
            number = key.data
            assert isinstance(key.fileobj, socket.socket)
            data = left[number] + key.fileobj.recv(1 << 18)
            had[number] += data.count(MARK)
            left[number] = data[-len(MARK) + 1 :]  # too short to be counted again
            if had[number] >= readers[number].records:
                waiting.unregister(key.fileobj)
                key.fileobj.close()
    for key in list(waiting.get_map().values()):
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.close()
    return time.monotonic() - began, had


def measure(peer: str, bootstrap: str, ids: MessageIds, *, logs: Path, python: Path, records: int) -> dict[str, dict[str, float]]:
    """Start a peer, run each scenario with it, and return the figures of each."""
    found: dict[str, dict[str, float]] = {}
    for name, readers in scenarios(records).items():
        with running(peer.split()[0], bootstrap, logs=logs, python=python, topics=[TOPIC], centrifugo=None) as server:
            before = cost(server.pid)
            paths = [f"/receive-message/client/u{number}?{_query(peer, reader, ids)}" for number, reader in enumerate(readers)]
            seconds, had = read_all(server.url, paths, readers)
            after = cost(server.pid)
        wanted = sum(reader.records for reader in readers)
        got = sum(min(count, reader.records) for count, reader in zip(had, readers, strict=True))
        figures = {"per_second": got / seconds, "cpu_100k": (after.cpu - before.cpu) * 1e5 / max(got, 1)}
        found[name] = {**figures, "missing": wanted - got, "rss": after.rss - before.rss}
        print(json.dumps({"peer": peer, "scenario": name, **found[name]}), file=sys.stderr)
    return found


def _query(peer: str, reader: Reader, ids: MessageIds) -> str:
    if peer.startswith("seed"):
        return f"offset={reader.offset}"
    start = f"cursor={ids.of(reader.offset - 1).decode()}" if reader.offset else "from=earliest"
    return f"{start}&meta=1" if peer.endswith("v1") else start


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=1_000_000, help="in the topic (1000000)")
    parser.add_argument("--passes", type=int, default=1, help="how often each is measured (1)")
    arguments = parser.parse_args()
    allow_many_files()
    cache = Path(os.environ.get("KAFKA_CHAT_CACHE") or Path.home() / ".cache" / "kafka_chat")
    python = peers_python(cache)
    logs = Path(tempfile.mkdtemp(prefix="kafka_chat-replay-"))
    print("| scenario | peer | records/s | / kafka_chat | server CPU s per 100,000 | RSS + MiB | missing |\n|---|---|---|---|---|---|---|")
    with kafka_cluster(heap_mb=1024, java_options=()) as cluster:
        cluster.create_topic(TOPIC)
        value = {"sender": "ann", "tag": None, "topic": TOPIC}
        for begin in range(0, arguments.records, 20_000):
            cluster.produce_many(
                TOPIC, [json.dumps({**value, "text": f"{n:08d}{'x' * 87}"}).encode() for n in range(begin, begin + 20_000)]
            )
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        described = admin.describe_topics(TopicCollection([TOPIC]))[TOPIC].result()
        ids = MessageIds(TOPIC, str(described.topic_id), 0)
        for _ in range(arguments.passes):
            found = {peer: measure(peer, cluster.bootstrap, ids, logs=logs, python=python, records=arguments.records) for peer in PEERS}
            for name, ours in found["kafka_chat"].items():
                for peer, figures in found.items():
                    one = figures[name]
                    ratio = one["per_second"] / ours["per_second"]
                    cells = (
                        name,
                        peer,
                        f"{one['per_second']:,.0f}",
                        f"{ratio:.3g}",
                        f"{one['cpu_100k']:.3f}",
                        f"{one['rss']:.0f}",
                        int(one["missing"]),
                    )
                    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print(f"\nlogs: {logs}", file=sys.stderr)


if __name__ == "__main__":
    main()
