"""Measures kafka_chat beside its peers, on a real Kafka of its own: `python -m bench [SCENARIO …]`.

Each scenario is measured in passes; in a pass every peer has its turn, with a fresh server, so that a pass compares what
ran within a minute. Prints tables in Markdown, and whether the marks are held; exit code 1 if one is not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from tests.support.brokers import kafka_cluster

from .servers import PEERS, ROOT, allow_many_files, peers_python, running
from .table import Results, tables

LIMIT_SECONDS = 400  # for one server in one scenario
TOPIC = "kafka.chat.global"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What one server is put through.

    Attributes:
        clients: how many.
        burst: messages of a burst; 0: none.
        repeat: bursts.
        rate: messages a second of the paced round; 0: none.
        seconds: of the paced round.
        peers: who can take it.
    """

    clients: int
    burst: int = 0
    repeat: int = 3
    rate: float = 0
    seconds: float = 10
    peers: tuple[str, ...] = ("kafka_chat", "centrifugo", "seed_shared", "seed_stack")

    def options(self) -> list[str]:
        """Return what the load generator takes."""
        numbers = {"clients": self.clients, "burst": self.burst, "repeat": self.repeat, "rate": self.rate, "seconds": self.seconds}
        return [word for name, number in numbers.items() for word in (f"--{name}", str(number))]


SCENARIOS = {
    "paced-500": Scenario(clients=500, rate=50, peers=("kafka_chat", "centrifugo", "seed_shared")),
    "burst-100": Scenario(clients=100, burst=5000, peers=("kafka_chat", "centrifugo", "seed_stack")),
    "one": Scenario(clients=1, burst=5000, rate=50),
    "hundred": Scenario(clients=100, burst=2000, rate=50),
    "five-hundred": Scenario(clients=500, burst=200, repeat=2, rate=50),
    "two-thousand": Scenario(clients=2000, burst=1000, rate=10, peers=("kafka_chat", "seed_shared")),
    "five-thousand": Scenario(clients=5000, burst=500, rate=5, peers=("kafka_chat", "seed_shared")),
    "workers": Scenario(clients=2000, rate=30, peers=("kafka_chat", "kafka_chat_workers")),
    "burst-500": Scenario(clients=500, burst=2000, peers=("kafka_chat", "centrifugo")),
    "burst-2000": Scenario(clients=2000, burst=1000, peers=("kafka_chat", "centrifugo")),
    "burst-5000": Scenario(clients=5000, burst=200, peers=("kafka_chat", "centrifugo")),
    "paced-2000": Scenario(clients=2000, rate=10, peers=("kafka_chat", "centrifugo")),
    "paced-5000": Scenario(clients=5000, rate=5, peers=("kafka_chat", "centrifugo")),
    "tiny": Scenario(clients=5, burst=50, repeat=1, rate=20, seconds=1),
}
MARKED = ("paced-500", "burst-100")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A figure of a peer over that of kafka_chat which is not to be less."""

    says: str
    scenario: str
    kind: str
    peer: str
    figure: str
    at_least: float


MARKS = (
    Mark(
        says="50 messages/s to 500 clients: CPU per delivery no more than one shared consumer's",
        scenario="paced-500", kind="paced", peer="seed_shared", figure="cpu_100k", at_least=1,
    ),
    Mark(
        says="50 messages/s to 500 clients: p99 no later than one shared consumer's",
        scenario="paced-500", kind="paced", peer="seed_shared", figure="p99", at_least=1,
    ),
    Mark(
        says="a burst of 5,000 to 100 clients: CPU per delivery at most 1/40 of a consumer per client's",
        scenario="burst-100", kind="burst", peer="seed_stack", figure="cpu_100k", at_least=40,
    ),
    Mark(
        says="a burst of 5,000 to 100 clients: CPU per delivery at most 1/3 of Centrifugo's",
        scenario="burst-100", kind="burst", peer="centrifugo", figure="cpu_100k", at_least=3,
    ),
    Mark(
        says="50 messages/s to 500 clients: CPU per delivery at most 0.75 of Centrifugo's",
        scenario="paced-500", kind="paced", peer="centrifugo", figure="cpu_100k", at_least=1.33,
    ),
    Mark(
        says="50 messages/s to 500 clients: p50 no later than Centrifugo's",
        scenario="paced-500", kind="paced", peer="centrifugo", figure="p50", at_least=1,
    ),
    Mark(
        says="50 messages/s to 500 clients: p99 no later than Centrifugo's",
        scenario="paced-500", kind="paced", peer="centrifugo", figure="p99", at_least=1,
    ),
)  # fmt: skip


def check_marks(results: Results) -> bool:
    """Print for each mark that was measured what came out; return whether all are held."""
    held = True
    for mark in MARKS:
        scenario = SCENARIOS[mark.scenario]
        messages = scenario.burst if mark.kind == "burst" else int(scenario.rate * scenario.seconds)
        rate = scenario.rate if mark.kind == "paced" else 0
        ratios = results.ratios(mark.kind, (scenario.clients, messages, rate), mark.peer, mark.figure)
        if ratios:
            ok = median(ratios) >= mark.at_least
            held = held and ok
            shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"- {'held' if ok else 'MISSED'}: {mark.says} ({mark.peer} / kafka_chat: {shown}; at least {mark.at_least:g})")
    return held


def measure(
    scenario: Scenario, number: int, *, bootstrap: str, out: Path, python: Path | None, centrifugo: Path | None, peers: list[str]
) -> None:
    """Put each peer through a scenario once.

    Args:
        scenario: what.
        number: of the pass.
        bootstrap: the brokers.
        out: a folder for results and logs.
        python: with the peers' packages.
        centrifugo: its binary.
        peers: who was asked for.
    """
    for peer in [name for name in scenario.peers if name in peers]:
        once = out / "once.jsonl"
        once.unlink(missing_ok=True)
        with running(peer, bootstrap, logs=out, python=python, topic=TOPIC, centrifugo=centrifugo) as server:
            command = [sys.executable, "-m", "bench.loadgen", server.url, "--bootstrap", bootstrap, "--pid", str(server.pid)]
            command += ["--name", peer, "--topic", TOPIC, "--results", str(once), *scenario.options()]
            if peer == "centrifugo":
                command.append("--centrifugo")
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
            for number in range(arguments.passes):
                measure(scenario, number, bootstrap=bootstrap, out=out, python=python, centrifugo=centrifugo, peers=peers)

    if arguments.bootstrap is not None:
        measure_all(arguments.bootstrap)
    else:
        with kafka_cluster(heap_mb=1024, java_options=()) as cluster:
            cluster.create_topic(TOPIC)
            cluster.produce_many(TOPIC, [b"warm"] * 20_000)  # Java compiles what it does often
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
