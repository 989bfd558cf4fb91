"""Prints results as tables in Markdown, a row per peer with the medians of all rounds: `python -m bench.table FILE`.

Ratios compare the i-th pass of a peer with the i-th pass of kafka_chat, which ran next to each other: the machine's speed
changes, and a ratio of figures taken an hour apart is meaningless.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

BASE = "kafka_chat"
BUSY = 0.8  # of a core; a load generator process that takes more may be the bottleneck

Result = dict[str, float]


class Results:
    """Lines of JSON from `bench.loadgen`, by scenario (clients, messages, rate), peer and pass."""

    def __init__(self, path: Path) -> None:
        self._found: dict[tuple[str, int, int, float], dict[str, list[list[Result]]]] = defaultdict(lambda: defaultdict(list))
        for line in path.read_text().splitlines():
            result = json.loads(line)
            key = (result["kind"], result["clients"], result.get("messages", 0), result.get("rate", 0))
            passes = self._found[key][result["peer"]]
            while len(passes) <= result["pass"]:
                passes.append([])
            passes[result["pass"]].append(result)

    def scenarios(self, kind: str) -> list[tuple[int, int, float]]:
        """Return clients, messages and rate of each scenario measured with this kind."""
        return sorted(key[1:] for key in self._found if key[0] == kind)

    def peers(self, kind: str, scenario: tuple[int, int, float]) -> list[str]:
        """Return the peers that were measured in a scenario, kafka_chat first."""
        return sorted(self._found[(kind, *scenario)], key=lambda peer: (peer != BASE, peer))

    def all(self, kind: str, scenario: tuple[int, int, float], peer: str) -> list[Result]:
        """Return all rounds of a peer."""
        return [result for one in self._found[(kind, *scenario)][peer] for result in one]

    def ratios(self, kind: str, scenario: tuple[int, int, float], peer: str, figure: str) -> list[float]:
        """Return a peer's figure divided by kafka_chat's, a number per pass."""
        found = self._found[(kind, *scenario)]
        mine, base = (
            [median([result[figure] for result in one]) if one and figure in one[0] else None for one in found[name]]
            for name in (peer, BASE)
        )
        return [a / b for a, b in zip(mine, base, strict=False) if a is not None and b]

    def medians(self, kind: str, scenario: tuple[int, int, float], figure: str) -> list[float]:
        """Return a figure of kafka_chat, a number per pass."""
        return [median([result[figure] for result in one]) for one in self._found[(kind, *scenario)][BASE] if one and figure in one[0]]


def tables(results: Results) -> str:
    """Return everything that was measured."""
    return "\n\n".join(table for table in (_bursts(results), _paced(results), _singles(results), _idle(results)) if table)


def _bursts(results: Results) -> str:
    columns = [
        "clients", "messages x rounds", "peer", "deliveries/s, median (least-most)", "/ kafka_chat, per pass",
        "server CPU s per 100,000", "/ kafka_chat, per pass", "server cores", "load generator cores x processes",
        "lost / doubled / disordered / cut", "RSS MiB",
    ]  # fmt: skip
    rows = []
    for scenario in results.scenarios("burst"):
        for peer in results.peers("burst", scenario):
            rounds = results.all("burst", scenario, peer)
            rates = [one["per_second"] for one in rounds]
            rows.append([
                str(scenario[0]), f"{scenario[1]} x {len(rounds)}", peer, f"{median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})",
                _listed(results.ratios("burst", scenario, peer, "per_second")), _median(rounds, "cpu_100k", 3),
                _listed(results.ratios("burst", scenario, peer, "cpu_100k")),
                _median(rounds, "cores", 2), _generator(rounds),
                _faults(rounds), _median(rounds, "rss", 0),
            ])  # fmt: skip
    return _table(columns, rows)


def _paced(results: Results) -> str:
    columns = [
        "clients", "rooms", "messages/s x seconds x rounds", "peer", "p50 ms", "p99 ms", "p99 / kafka_chat, per pass", "p999 ms", "most ms",
        "server CPU s per 100,000", "/ kafka_chat, per pass", "load generator cores x processes", "lost / doubled / disordered / cut",
    ]  # fmt: skip
    rows = []
    for scenario in results.scenarios("paced"):
        for peer in results.peers("paced", scenario):
            rounds = results.all("paced", scenario, peer)
            rows.append([
                str(scenario[0]), _median(rounds, "rooms", 0), f"{scenario[2]:g} x {scenario[1] / scenario[2]:g} x {len(rounds)}", peer,
                _median(rounds, "p50", 1), _median(rounds, "p99", 1), _listed(results.ratios("paced", scenario, peer, "p99")),
                _median(rounds, "p999", 1), _median(rounds, "max", 1), _median(rounds, "cpu_100k", 2),
                _listed(results.ratios("paced", scenario, peer, "cpu_100k")), _generator(rounds), _faults(rounds),
            ])  # fmt: skip
    return _table(columns, rows)


def _singles(results: Results) -> str:
    columns = [
        "clients", "rooms", "messages x rounds", "peer", "acknowledged -> read, p50 ms", "p99 ms", "produced -> read, p50 ms", "p99 ms",
        "server cores", "lost",
    ]  # fmt: skip
    rows = []
    for scenario in results.scenarios("single"):
        for peer in results.peers("single", scenario):
            rounds = results.all("single", scenario, peer)
            rows.append([
                str(scenario[0]), _median(rounds, "rooms", 0), f"{scenario[1]} x {len(rounds)}", peer,
                _median(rounds, "p50", 1), _median(rounds, "p99", 1), _median(rounds, "produced_p50", 1),
                _median(rounds, "produced_p99", 1), _median(rounds, "cpu", 2), f"{sum(one['missing'] for one in rounds):g}",
            ])  # fmt: skip
    return _table(columns, rows)


def _idle(results: Results) -> str:
    columns = [
        "clients", "peer", "CPU ms to connect one", "KiB a connected socket", "the same after a first message", "idle CPU % of a core",
        "pings in s", "RSS MiB before -> with all", "threads", "files", "handshakes s", "fed", "fed after s",
    ]  # fmt: skip
    rows = []
    for scenario in results.scenarios("idle"):
        for peer in results.peers("idle", scenario):
            rounds = results.all("idle", scenario, peer)
            rows.append([
                str(scenario[0]), peer, _median(rounds, "connect_cpu_ms", 2),
                _median(rounds, "connected_kib", 1), _median(rounds, "idle_kib", 1),
                f"{median([one['idle_cpu'] * 100 for one in rounds]):.1f}",
                f"{_median(rounds, 'pings', 0)} in {_median(rounds, 'idle_seconds', 0)}",
                f"{_median(rounds, 'rss_before', 0)} -> {_median(rounds, 'rss', 0)}",
                _median(rounds, "threads", 0), _median(rounds, "files", 0),
                _median(rounds, "handshake_seconds", 1), f"{_median(rounds, 'fed', 0)} / {scenario[0]}", _median(rounds, "fed_seconds", 1),
            ])  # fmt: skip
    return _table(columns, rows)


def _median(rounds: list[Result], figure: str, digits: int) -> str:
    found = [one[figure] for one in rounds if figure in one]
    return f"{median(found):.{digits}f}" if found else "-"


def _listed(ratios: list[float]) -> str:
    return " ".join(f"{ratio:.3g}" for ratio in ratios) or "-"


def _generator(rounds: list[Result]) -> str:
    """Return the load generator's cores; in bold if one of its processes was busy enough to be the bottleneck."""
    if "loadgen_cores" not in rounds[0]:
        return "-"
    shown = f"{_median(rounds, 'loadgen_cores', 2)} x {_median(rounds, 'processes', 0)}"
    return f"**{shown}**" if median([one["loadgen_busiest"] for one in rounds]) > BUSY else shown


def _faults(rounds: list[Result]) -> str:
    if "missing" not in rounds[0]:
        return "-"
    return " / ".join(f"{sum(one[figure] for one in rounds):g}" for figure in ("missing", "doubles", "disordered", "cut"))


def _table(columns: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, ["---"] * len(columns), *rows])


if __name__ == "__main__":
    print(tables(Results(Path(sys.argv[1]))))
