"""Measures kafka_chat and its peers on a real Kafka that it starts: `python -m bench [SCENARIO …]`.

Each scenario is measured in passes; a pass runs every peer once, with a fresh server, so that it compares figures that
were taken within a minute. Prints tables in Markdown, and whether the marks are held; exit code 1 if one is not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from tests.support.brokers import kafka_cluster

from .rooms import ROOM_TOPIC, make_topics
from .servers import PEERS, ROOT, allow_many_files, peers_python, running
from .table import Results, tables

LIMIT_SECONDS = 400  # for one server in one scenario
TOPIC = "kafka.chat.global"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The load on one server.

    Attributes:
        clients: how many.
        burst: messages of a burst; 0: none.
        repeat: bursts.
        rate: messages a second of the paced round; 0: none.
        seconds: of the paced round.
        single: messages sent one at a time; 0: none.
        idle: seconds without messages.
        rooms: topics, of which each client follows some; 0: the one topic that all follow.
        followed: rooms a client.
        processes: of the load generator.
        peers: the servers that can run it.
    """

    clients: int
    burst: int = 0
    repeat: int = 3
    rate: float = 0
    seconds: float = 10
    single: int = 0
    idle: float = 5
    rooms: int = 0
    followed: int = 3
    processes: int = 1
    peers: tuple[str, ...] = ("kafka_chat", "centrifugo", "seed_shared", "seed_stack")

    def options(self) -> list[str]:
        """Return what the load generator takes."""
        numbers = {name: number for name, number in asdict(self).items() if name != "peers"}
        return [word for name, number in numbers.items() for word in (f"--{name}", str(number))]

    def key(self, kind: str) -> tuple[int, int, float]:
        """Return clients, messages and rate of its results of a kind."""
        messages = {"burst": self.burst, "paced": int(self.rate * self.seconds), "single": self.single, "idle": 0}[kind]
        return self.clients, messages, self.rate if kind == "paced" else 0


BESIDE = ("kafka_chat", "centrifugo")

SCENARIOS = {
    "paced-500": Scenario(clients=500, rate=50, peers=("kafka_chat", "kafka_chat_v1", "centrifugo", "floor", "seed_shared")),
    "burst-100": Scenario(clients=100, burst=5000, peers=("kafka_chat", "kafka_chat_v1", "centrifugo", "seed_stack")),
    "burst-500": Scenario(clients=500, burst=2000, processes=2, peers=BESIDE),
    "burst-2000": Scenario(clients=2000, burst=1000, processes=2, peers=("kafka_chat", "kafka_chat_v1", "centrifugo")),
    "burst-5000": Scenario(clients=5000, burst=200, processes=2, peers=BESIDE),
    "paced-2000": Scenario(clients=2000, rate=10, peers=BESIDE),
    "paced-5000": Scenario(clients=5000, rate=5, processes=2, peers=BESIDE),
    "one": Scenario(clients=1, single=300, peers=BESIDE),
    "idle-sockets": Scenario(clients=2000, peers=BESIDE),
    "idle-10000": Scenario(clients=10_000, idle=50, peers=BESIDE),  # two pings each
    "rooms": Scenario(clients=4000, rooms=2000, rate=2000, peers=BESIDE),
    "rooms-500": Scenario(clients=5, rooms=500, followed=100, single=200, peers=BESIDE),
    "rooms-2000": Scenario(clients=20, rooms=2000, followed=100, single=200, peers=BESIDE),
    "rooms-6000": Scenario(clients=60, rooms=6000, followed=100, single=200, peers=BESIDE),
    "tls": Scenario(clients=500, rate=50, peers=("kafka_chat", "kafka_chat_tls")),
    "workers": Scenario(clients=2000, rate=30, peers=("kafka_chat", "kafka_chat_workers")),
    "hundred": Scenario(clients=100, burst=2000, rate=50),
    "five-hundred": Scenario(clients=500, burst=200, repeat=2, rate=50),
    "tiny": Scenario(clients=5, burst=50, repeat=1, rate=20, seconds=1),
    "tiny-rooms": Scenario(clients=20, rooms=30, rate=60, seconds=1, single=5, idle=1, processes=1, peers=BESIDE),
}
MARKED = ("paced-500", "burst-100")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A bound on a figure of kafka_chat.

    Attributes:
        says: the mark in words.
        scenario: where.
        kind: of the result.
        figure: its name there.
        peer: the peer whose figure ours is divided by; None: ours is taken as it is.
        at_least: the least that it may be, if any.
        at_most: the most that it may be, if any.
    """

    says: str
    scenario: str
    kind: str
    figure: str
    peer: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether it is held."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


def _no_more(scenario: str, kind: str, figure: str, peer: str, at_most: float, says: str) -> Mark:
    return Mark(says=says, scenario=scenario, kind=kind, figure=figure, peer=peer, at_most=at_most)


def _rate(scenario: str, at_least: float) -> Mark:
    return Mark(says="deliveries a second", scenario=scenario, kind="burst", figure="per_second", peer="centrifugo", at_least=at_least)


MARKS = (
    _no_more("paced-500", "paced", "cpu_100k", "seed_shared", 1, "CPU per delivery"),
    _no_more("paced-500", "paced", "p99", "seed_shared", 1, "p99"),
    _no_more("paced-500", "paced", "cpu_100k", "centrifugo", 0.75, "CPU per delivery"),
    _no_more("paced-500", "paced", "cpu_100k", "floor", 1.4, "CPU per delivery"),
    _no_more("paced-500", "paced", "p50", "centrifugo", 1, "p50"),
    _no_more("paced-500", "paced", "p99", "centrifugo", 1, "p99"),
    _no_more("burst-100", "burst", "cpu_100k", "seed_stack", 1 / 50, "CPU per delivery"),
    _no_more("burst-100", "burst", "cpu_100k", "centrifugo", 1 / 3, "CPU per delivery"),
    _rate("burst-100", 2),
    _rate("burst-500", 2.5),
    _rate("burst-2000", 3.5),
    _rate("burst-5000", 8),
    *(
        mark
        for scenario in ("paced-2000", "paced-5000")
        for mark in (
            _no_more(scenario, "paced", "cpu_100k", "centrifugo", 0.7, "CPU per delivery"),
            _no_more(scenario, "paced", "p50", "centrifugo", 1, "p50"),
            _no_more(scenario, "paced", "p99", "centrifugo", 1, "p99"),
        )
    ),
    _no_more("rooms", "paced", "cpu_100k", "centrifugo", 1, "CPU per delivery"),
    _no_more("rooms", "paced", "p99", "centrifugo", 1, "p99"),
    _no_more("idle-10000", "idle", "idle_cpu", "centrifugo", 2, "CPU of idle sockets that are pinged"),
    Mark(says="acknowledged -> read, p50 ms", scenario="one", kind="single", figure="p50", at_most=3),
    Mark(says="acknowledged -> read, p50 ms", scenario="rooms-500", kind="single", figure="p50", at_most=10),
    Mark(says="acknowledged -> read, p50 ms", scenario="rooms-2000", kind="single", figure="p50", at_most=20),
    Mark(says="acknowledged -> read, p50 ms", scenario="rooms-6000", kind="single", figure="p50", at_most=60),
    Mark(says="KiB an idle socket", scenario="idle-sockets", kind="idle", figure="connected_kib", at_most=28),
    Mark(says="CPU ms a connect", scenario="idle-sockets", kind="idle", figure="connect_cpu_ms", at_most=0.9),
)


def check_marks(results: Results) -> bool:
    """Print the result for each mark that was measured; return whether all are held."""
    held = True
    for mark in MARKS:
        key = SCENARIOS[mark.scenario].key(mark.kind)
        if mark.peer is None:
            values = results.medians(mark.kind, key, mark.figure)
        else:
            values = [1 / ratio for ratio in results.ratios(mark.kind, key, mark.peer, mark.figure) if ratio]
        if values:
            ok = mark.holds(median(values))
            held = held and ok
            shown = ", ".join(f"{value:.3g}" for value in values)
            bound = f"at least {mark.at_least:.3g}" if mark.at_least is not None else f"at most {mark.at_most:.3g}"
            of = f" / {mark.peer}'s" if mark.peer else ""
            print(f"- {'held' if ok else 'MISSED'}: {mark.scenario}: {mark.says}{of}: {shown} ({bound})")
    return held


def floor(clients: int) -> float:
    """Return the CPU seconds of 100,000 bare writes to `clients` sockets: the lower of two rounds."""
    done = subprocess.run([sys.executable, "-m", "bench.floor", str(clients)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, end="", file=sys.stderr)
    return min(float(seconds) for seconds in re.findall(r"os\.write: ([\d.]+) s", done.stdout))


def measure(
    scenario: Scenario, number: int, *, bootstrap: str, out: Path, python: Path | None, centrifugo: Path | None, peers: list[str]
) -> None:
    """Run a scenario once with each peer.

    Args:
        scenario: what.
        number: of the pass.
        bootstrap: the brokers.
        out: a folder for results and logs.
        python: with the peers' packages.
        centrifugo: its binary.
        peers: those that were asked for.
    """
    topics = [f"{ROOM_TOPIC}{room}" for room in range(scenario.rooms)] or [TOPIC]
    for peer in [name for name in scenario.peers if name in peers]:
        if peer == "floor":
            least = floor(scenario.clients)
            clients, messages, rate = scenario.key("paced")
            result = {"peer": peer, "kind": "paced", "clients": clients, "messages": messages, "rate": rate, "cpu_100k": least}
            with (out / "results.jsonl").open("a") as results:
                results.write(json.dumps({**result, "pass": number}) + "\n")
            continue
        once = out / "once.jsonl"
        once.unlink(missing_ok=True)
        with running(peer, bootstrap, logs=out, python=python, topics=topics, centrifugo=centrifugo) as server:
            command = [sys.executable, "-m", "bench.loadgen", server.url, "--bootstrap", bootstrap, "--pid", str(server.pid)]
            command += ["--name", peer, "--topic", TOPIC, "--results", str(once), *scenario.options()]
            if peer == "centrifugo":
                command.append("--centrifugo")
            if peer == "kafka_chat_v1":
                command += ["--query", "?meta=1"]
            try:
                done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, timeout=LIMIT_SECONDS, check=False)
            except subprocess.TimeoutExpired:
                print(f"{peer} was given up on after {LIMIT_SECONDS} s", file=sys.stderr)
            else:
                if done.returncode:
                    print(f"the load generator ended with {done.returncode}", file=sys.stderr)
        if once.exists():
            with (out / "results.jsonl").open("a") as results:
                for line in once.read_text().splitlines():
                    results.write(json.dumps({**json.loads(line), "pass": number}) + "\n")
            once.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; without any: {', '.join(MARKED)}")
    parser.add_argument("--passes", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"who is measured, of {', '.join(PEERS)} (all)")
    parser.add_argument("--clients", type=int, help="another number of clients")
    parser.add_argument("--bootstrap", help="use these brokers instead of some of its own; the topic is kafka.chat.global")
    parser.add_argument("--peers-python", type=Path, help="a Python that has the dependency group bench; else one is made in the cache")
    parser.add_argument("--centrifugo", type=Path, help="its binary; else `centrifugo` on the PATH, and without one it is left out")
    parser.add_argument("--out", type=Path, help="a folder for results.jsonl and logs; else a new one in the folder for temporary files")
    arguments = parser.parse_args()
    peers = arguments.peers.split(",")
    if unknown := [*(set(arguments.scenarios) - set(SCENARIOS)), *(set(peers) - set(PEERS))]:
        parser.error(f"{', '.join(unknown)}: no such scenario or peer")
    allow_many_files()
    out = arguments.out or Path(tempfile.mkdtemp(prefix="kafka_chat-bench-"))
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.jsonl").touch()
    cache = Path(os.environ.get("KAFKA_CHAT_CACHE") or Path.home() / ".cache" / "kafka_chat")
    chosen = [SCENARIOS[name] for name in arguments.scenarios or MARKED]
    if arguments.clients is not None:
        chosen = [replace(scenario, clients=arguments.clients) for scenario in chosen]
    python = None
    found = arguments.centrifugo or shutil.which("centrifugo")
    centrifugo = None if found is None else Path(found)
    if centrifugo is None and "centrifugo" in peers:
        print("centrifugo is left out: it is not on the PATH (see bench/README.md)", file=sys.stderr)
        peers.remove("centrifugo")
    if any(name.startswith("seed_") for scenario in chosen for name in scenario.peers if name in peers):
        python = arguments.peers_python or peers_python(cache)

    def measure_all(bootstrap: str) -> None:
        for scenario in chosen:
            make_topics(bootstrap, scenario.rooms)
            for number in range(arguments.passes):
                measure(scenario, number, bootstrap=bootstrap, out=out, python=python, centrifugo=centrifugo, peers=peers)

    if arguments.bootstrap is not None:
        measure_all(arguments.bootstrap)
    else:
        with kafka_cluster(heap_mb=1536 if any(scenario.rooms for scenario in chosen) else 1024, java_options=()) as cluster:
            cluster.create_topic(TOPIC)
            cluster.produce_many(TOPIC, [b"warm"] * 20_000)  # so that the JVM has compiled the hot code
            time.sleep(1)
            measure_all(cluster.bootstrap)
    results = Results(out / "results.jsonl")
    print(tables(results))
    print()
    held = check_marks(results)
    print(f"\nresults and logs: {out}", file=sys.stderr)
    sys.exit(not held)


if __name__ == "__main__":
    main()
