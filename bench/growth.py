"""Measures how costs grow with the load: `python -m bench.growth [clients] [existing] [followed] [partitions] …`.

- clients: 100 to 10,000 clients follow one chat, at the same deliveries a second.
- existing: 1 to 10,000 chats exist, one of which is followed.
- followed: 10 to 3,000 chats are followed, each by ten clients, at the same messages a second in total.
- partitions: the chat that all follow has 1 to 100 partitions.

A fresh server each; prints a table in Markdown, and with `--plot FILE` draws it as an SVG.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.brokers import kafka_cluster

from .plot import Line, plot
from .rooms import PREFIX, ROOM_TOPIC, make_topics
from .servers import ROOT, allow_many_files, running

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.brokers import Broker

LIMIT_SECONDS = 200
DELIVERIES = 20_000  # a second, over all clients, where these are what grows
SECONDS = 8
COLUMNS = (
    "what grows",
    "to",
    "deliveries/s",
    "idle CPU % of a core",
    "CPU s per 100,000 deliveries",
    "p50 ms",
    "p99 ms",
    "MiB before -> with all",
    "lost / doubled / disordered",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One server under one load.

    Attributes:
        size: the number of clients, chats or partitions.
        topic: the followed topic, or the prefix of the followed topics.
        partitions: the number of its partitions.
        existing: the number of chats that nobody follows.
        options: the command line options of the load generator.
    """

    size: int
    topic: str = f"{PREFIX}global"
    partitions: int = 1
    existing: int = 0
    options: Mapping[str, float]


def _clients(count: int) -> Step:
    return Step(size=count, options={"clients": count, "rate": DELIVERIES / count, "processes": 2 if count > 3000 else 1})


def _followed(count: int) -> Step:
    clients = max(100, count // 10)  # a call accepts a hundred subscriptions
    return Step(size=count, topic=ROOM_TOPIC, options={"clients": clients, "rate": 100, "rooms": count, "followed": 10 * count // clients})


GROWTH = {
    "clients": [_clients(count) for count in (100, 1000, 3000, 10_000)],
    "existing": [Step(size=count, existing=count, options={"clients": 100, "rate": 50}) for count in (1, 100, 1000, 10_000)],
    "followed": [_followed(count) for count in (10, 100, 1000, 3000)],
    "partitions": [
        Step(size=count, topic=f"{PREFIX}parts{count}", partitions=count, options={"clients": 100, "rate": 50}) for count in (1, 10, 100)
    ],
}


def measure(step: Step, cluster: Broker, out: Path) -> dict[str, float]:
    """Run a step on a fresh server; return the figures of its idle clients and of its paced round."""
    rooms = int(step.options.get("rooms", 0))
    make_topics(cluster.bootstrap, max(rooms, step.existing))
    if not rooms and step.topic not in cluster.topics():
        cluster.create_topic(step.topic, step.partitions)
    found = out / "once.jsonl"
    found.unlink(missing_ok=True)
    # Clients of rooms have subscribed to them.
    environ = {"KAFKA_CHAT_CHATS__DEFAULT": "" if rooms else step.topic.removeprefix(PREFIX)}
    with running("kafka_chat", cluster.bootstrap, logs=out, environ=environ) as server:
        command = [sys.executable, "-m", "bench.loadgen", server.url, "--bootstrap", cluster.bootstrap, "--pid", str(server.pid)]
        command += ["--topic", step.topic, "--results", str(found), "--idle", "8", "--seconds", str(SECONDS)]
        command += [word for name, number in step.options.items() for word in (f"--{name}", str(number))]
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, timeout=LIMIT_SECONDS, check=True)
    results = [json.loads(line) for line in found.read_text().splitlines()]
    return {key: value for result in results for key, value in result.items()}


def row(name: str, step: Step, figures: Mapping[str, float]) -> str:
    """Return a row of the table."""
    cells = [
        name,
        f"{step.size:,}",
        f"{figures['per_second']:,.0f}",
        f"{figures['idle_cpu'] * 100:.1f}",
        f"{figures['cpu_100k']:.2f}",
        f"{figures['p50']:.1f}",
        f"{figures['p99']:.1f}",
        f"{figures['rss_before']:.0f} -> {figures['rss']:.0f}",
        " / ".join(f"{figures[fault]:g}" for fault in ("missing", "doubles", "disordered")),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="WHAT", help=f"of {', '.join(GROWTH)}; without any: all")
    parser.add_argument(
        "--results", type=Path, default=Path(tempfile.gettempdir()) / "kafka_chat-growth.jsonl", help="lines are added to it"
    )
    parser.add_argument("--plot", type=Path, help="draw all results of that file as an SVG into this one, and measure nothing")
    arguments = parser.parse_args()
    if arguments.plot is not None:
        arguments.plot.write_text(drawn(arguments.results))
        return
    if unknown := set(arguments.names) - set(GROWTH):
        parser.error(f"{', '.join(unknown)}: nothing of that name grows")
    allow_many_files()
    out = Path(tempfile.mkdtemp(prefix="kafka_chat-growth-"))
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    with kafka_cluster(heap_mb=1536, java_options=()) as cluster:
        for name in arguments.names or GROWTH:
            for step in GROWTH[name]:
                figures = measure(step, cluster, out)
                print(row(name, step, figures), flush=True)
                with arguments.results.open("a") as file:
                    file.write(json.dumps({"what": name, "size": step.size, **figures}) + "\n")


def drawn(results: Path) -> str:
    """Return an SVG with a panel of costs for each thing that grows; of a size measured twice, the last figures count."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for line in results.read_text().splitlines():
        result = json.loads(line)
        found.setdefault(result["what"], {})[result["size"]] = result
    panels = {}
    for name, by_size in found.items():
        points = sorted(by_size.items())
        panels[name] = [
            Line("CPU s per 100,000 deliveries", [(size, one["cpu_100k"]) for size, one in points]),
            Line("idle CPU, % of a core", [(size, one["idle_cpu"] * 100) for size, one in points]),
            Line("MiB", [(size, one["rss"]) for size, one in points]),
        ]
    return plot(panels)


if __name__ == "__main__":
    main()
