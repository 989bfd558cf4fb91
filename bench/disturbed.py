"""What one awkward client does to 500 others: `python -m bench.disturbed [--clients N] [--repeat N]`.

Rounds of paced messages to all, one with nobody else and one with an awkward client, in turns: one that never reads, one
that reads the past again and again, one that offers deflate. Prints the others' latencies, and how long the server's event
loop was blocked (`ticking.py`), as a table in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.support.brokers import kafka_cluster

from .loadgen import quantiles
from .producer import Producing
from .servers import ROOT, allow_many_files, running
from .shard import Came, Part, Round, Shard
from .slow_reader import server_end

if TYPE_CHECKING:
    from collections.abc import Callable

TOPIC = "kafka.chat.global"
PAST = 200_000  # records that are there before
PADDING = 1000  # bytes, so that one that reads nothing is behind within seconds
RATE = 50.0
SECONDS = 8
SETTLE_SECONDS = 1.0
COLUMNS = (
    "beside the others, one that",
    "p50 ms: without, with",
    "p99 ms: without, with",
    "p99, with / without",
    "blocked for ms of CPU, at most: without, with",
    "for ms of the clock",
    "MB that it read",
    "lost, doubled, disordered, cut",
)


@dataclass(frozen=True, slots=True)
class Result:
    """One round: the others' latencies in ms, the loop's longest waits in ms, and what was lost, doubled, disordered or cut."""

    p50: float
    p99: float
    wall: float
    cpu: float
    faults: int
    read: int


def never_reads(host: str, port: int, over: threading.Event) -> int:
    """Connect with a small buffer, and read nothing behind the handshake."""
    with _connected(host, port, "/receive-message/client/slow", receive_buffer=4096) as connection:
        over.wait()
        print(f"towards the one that never reads: {server_end(port, connection.getsockname()[1])}", file=sys.stderr)
    return 0


def replays(host: str, port: int, over: threading.Event) -> int:
    """Read from the first message on, and start over at the end of the past; return the bytes that came."""
    read = 0
    while not over.is_set():
        with _connected(host, port, "/receive-message/client/past?from=earliest") as connection:
            began = read
            while not over.is_set() and read - began < PAST * 100:
                read += len(connection.recv(1 << 18))
    return read


def offers_deflate(host: str, port: int, over: threading.Event) -> int:
    """Offer permessage-deflate, as browsers do, and read; return the bytes that came."""
    read = 0
    with _connected(host, port, "/receive-message/client/deflate", "Sec-WebSocket-Extensions: permessage-deflate\r\n") as connection:
        connection.settimeout(0.2)
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                read += len(connection.recv(1 << 18))
    return read


AWKWARD = {"never reads": never_reads, "replays": replays, "offers deflate": offers_deflate}


def _connected(host: str, port: int, path: str, header: str = "", *, receive_buffer: int | None = None) -> socket.socket:
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    connection.connect((host, port))
    upgrade = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{header}"
    connection.sendall(f"{upgrade}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(1)
    if b" 101 " not in answer:
        raise RuntimeError(f"the handshake was refused: {answer!r}")
    return connection


def one_round(
    shard: Shard, producing: Producing, url: str, ticks: Path, awkward: Callable[[str, int, threading.Event], int] | None
) -> Result:
    """Send to all for some seconds, with or without an awkward client beside them."""
    server = urlsplit(url)
    over, read = threading.Event(), [0]

    def disturb() -> None:
        if awkward is not None:
            read[0] = awkward(str(server.hostname), server.port or 0, over)

    beside = threading.Thread(target=disturb)
    beside.start()
    time.sleep(SETTLE_SECONDS)
    tag, messages = f"{random.getrandbits(32):08x}", int(RATE * SECONDS)
    shard.begin("count", Round(tag=tag, messages=messages, timed=True, stall=10))
    shard.answer()
    began = time.monotonic()
    producing.send(tag, messages, rate=RATE, padding=PADDING)
    shard.answer()
    ended = time.monotonic()
    came = shard.answer()
    producing.finished()
    over.set()
    beside.join()
    assert isinstance(came, Came)
    latencies = quantiles([nanoseconds / 1e6 for nanoseconds in came.latencies])
    lines = [json.loads(line) for line in ticks.read_text().splitlines()]
    waits = [line for line in lines if line["from"] >= began and line["until"] <= ended]
    return Result(
        p50=latencies["p50"],
        p99=latencies["p99"],
        wall=max(line["wall"] for line in waits),
        cpu=max(line["cpu"] for line in waits),
        faults=came.missing + came.doubles + came.disordered + came.cut,
        read=read[0],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.disturbed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=500, help="that read (500)")
    parser.add_argument("--repeat", type=int, default=2, help="how often each is measured (2)")
    arguments = parser.parse_args()
    allow_many_files()
    logs = Path(tempfile.mkdtemp(prefix="kafka_chat-disturbed-"))
    ticks = logs / "ticks.jsonl"
    found: dict[str, list[tuple[Result, Result]]] = {name: [] for name in AWKWARD}
    with kafka_cluster(heap_mb=1024, java_options=()) as cluster:
        cluster.create_topic(TOPIC)
        value = {"sender": "ann", "tag": "t", "topic": TOPIC}
        for first in range(0, PAST, 20_000):
            cluster.produce_many(
                TOPIC, [json.dumps({**value, "text": f"{n:08d}{'x' * 87}"}).encode() for n in range(first, first + 20_000)]
            )
        with running("kafka_chat_ticking", cluster.bootstrap, logs=logs, environ={"TICKS": str(ticks), "PYTHONPATH": str(ROOT)}) as server:
            address = urlsplit(server.url)
            part = Part(
                host=str(address.hostname), port=address.port or 0, first=0, clients=arguments.clients,
                user="u", query="", tls=False, centrifugo=False, topic=TOPIC, rooms=0, followed=0,
            )  # fmt: skip
            shard, producing = Shard(part), Producing(cluster.bootstrap, TOPIC)
            shard.begin("connect")
            shard.answer()
            one_round(shard, producing, server.url, ticks, None)  # everything is warm
            for _ in range(arguments.repeat):
                for name, awkward in AWKWARD.items():
                    alone = one_round(shard, producing, server.url, ticks, None)
                    beside = one_round(shard, producing, server.url, ticks, awkward)
                    print(f"{name}: {alone}, {beside}", file=sys.stderr)
                    found[name].append((alone, beside))
            shard.close()
            producing.close()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name, pairs in found.items():
        ratios = [beside.p99 / alone.p99 for alone, beside in pairs]
        cells = [
            name,
            *(", ".join(f"{median(getattr(pair[which], figure) for pair in pairs):.1f}" for which in (0, 1)) for figure in ("p50", "p99")),
            f"{median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
            *(", ".join(f"{max(getattr(pair[which], figure) for pair in pairs):.1f}" for which in (0, 1)) for figure in ("cpu", "wall")),
            f"{median(beside.read for _, beside in pairs) / 1e6:.0f}",
            str(sum(alone.faults + beside.faults for alone, beside in pairs)),
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
