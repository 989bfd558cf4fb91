"""Measures one server: `python -m bench.loadgen URL --bootstrap HOST:PORT --pid PID --clients N …`.

It connects the clients, sends messages until each has received one, then single messages, each after the previous one has
come (`--single`), then bursts (`--burst MESSAGES`, `--repeat`), then a paced round (`--rate`, `--seconds`), which measures
latencies from before the produce to after the read. Prints a line of JSON for each. The clients run in separate processes
(`--processes`); with `--rooms` each follows some of many topics instead of one.

Deliveries a second are counted from the first message produced to the last delivery, so the time that a server holds
messages back counts, too.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from .processes import cost
from .producer import Producing
from .rooms import ROOM_TOPIC, rooms_of, subscribe
from .shard import Came, Part, Round, Shard

QUIET_SECONDS = 1.5
SINGLE_SECONDS = 5.0  # a single message that takes longer is lost


class Measurement:
    """The measurement of one server."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.tag = f"{random.getrandbits(32):08x}"
        self.topic = ROOM_TOPIC if arguments.rooms else arguments.topic
        self.producing = Producing(arguments.bootstrap, self.topic, rooms=arguments.rooms)
        # On the same brokers, clients with rooms are other users than clients without.
        self.user = f"r{arguments.rooms}c{arguments.clients}u" if arguments.rooms else "u"
        self.shards = self.make_shards()
        self.reasons: dict[str, int] = {}

    def make_shards(self) -> list[Shard]:
        """Start the processes with the clients."""
        arguments = self.arguments
        server = urlsplit(arguments.url)
        assert server.hostname is not None
        assert server.port is not None
        bounds = [arguments.clients * nth // arguments.processes for nth in range(arguments.processes + 1)]
        return [
            Shard(
                Part(
                    host=server.hostname,
                    port=server.port,
                    first=first,
                    clients=end - first,
                    user=self.user,
                    query=arguments.query,
                    tls=server.scheme == "https",
                    centrifugo=arguments.centrifugo,
                    topic=self.topic,
                    rooms=arguments.rooms,
                    followed=arguments.followed,
                )
            )
            for first, end in pairwise(bounds)
        ]

    def run(self) -> None:
        """Measure everything that was asked for."""
        arguments = self.arguments
        if arguments.rooms and not arguments.centrifugo:
            numbers = range(arguments.clients)
            followed = [rooms_of(number, arguments.followed, arguments.rooms) for number in numbers]
            subscribe(arguments.url, [f"{self.user}{number}" for number in numbers], followed)
        self.connect()
        if arguments.single:
            self.single(arguments.single)
        for _ in range(arguments.repeat if arguments.burst else 0):
            self.round("burst", arguments.burst)
        if arguments.rate:
            self.round("paced", int(arguments.rate * arguments.seconds), rate=arguments.rate)
        for shard in self.shards:
            shard.close()
        self.producing.close()

    def ask(self, *order: object) -> list[object]:
        """Send the same order to all processes; return their answers."""
        for shard in self.shards:
            shard.begin(*order)
        return self.answers()

    def answers(self) -> list[object]:
        """Wait for one more answer from each process."""
        return [shard.answer() for shard in self.shards]

    def connect(self) -> None:
        """Connect all clients; measure the cost of that, and of idle clients before and after a first message."""
        pid, count, seconds = self.arguments.pid, self.arguments.clients, self.arguments.idle
        self.ask("idle", 0.0)  # the processes are up
        before, start = cost(pid), time.monotonic()
        for shard in self.shards:  # one after the other, for the same number of concurrent handshakes as with one process
            shard.begin("connect")
            shard.answer()
        handshakes = time.monotonic() - start
        self.ask("idle", QUIET_SECONDS)
        connected = cost(pid)
        fed, fed_seconds = self.feed()
        self.ask("idle", QUIET_SECONDS)
        quiet = cost(pid)
        pings = sum(int(str(answer)) for answer in self.ask("idle", seconds))
        idle = cost(pid)
        self.emit(
            "idle",
            handshake_seconds=handshakes,
            connect_cpu_ms=(connected.cpu - before.cpu) / count * 1000,
            connected_kib=(connected.rss - before.rss) * 1024 / count,
            fed=fed,
            fed_seconds=fed_seconds,
            idle_kib=(idle.rss - before.rss) * 1024 / count,
            idle_seconds=seconds,
            idle_cpu=(idle.cpu - quiet.cpu) / seconds,
            pings=pings,
            rss_before=before.rss,
            rss=idle.rss,
            threads=idle.threads,
            files=idle.files,
        )

    def feed(self) -> tuple[int, float]:
        """Send a message (with rooms: one to each room) again and again until every client has received one.

        Returns:
            How many clients have received one, and after how many seconds.
        """
        start = time.monotonic()
        fed = 0
        while fed < self.arguments.clients and time.monotonic() - start < self.arguments.patience:
            tag = f"{self.tag}-probe"
            self.ask("feed", tag, 3.0 + self.arguments.clients / 1000 + self.arguments.rooms / 200)
            self.producing.send(tag, self.arguments.rooms or 1)
            self.producing.finished()
            fed = sum(int(str(answer)) for answer in self.answers())
        return fed, time.monotonic() - start

    def single(self, messages: int) -> None:
        """Send messages one at a time (with rooms: each to the next room), and measure when each is first read."""
        tag = f"{self.tag}-single"
        produced, acknowledged, lost, cpu, start = [], [], 0, cost(self.arguments.pid).cpu, time.monotonic()
        for number in range(messages):
            text = f"{tag}.{number:08d}."
            for shard in self.shards:
                shard.begin("wait_for", text, SINGLE_SECONDS)
            self.answers()
            sent = time.monotonic_ns()
            self.producing.send(tag, 1, first=number)
            self.producing.finished()
            reads = [read for read in (int(str(answer)) for answer in self.answers()) if read]
            if reads:
                produced.append((min(reads) - sent) / 1e6)
                acknowledged.append((min(reads) - self.producing.acknowledged_ns) / 1e6)
            else:
                lost += 1
            time.sleep(random.uniform(0, 0.02))  # not in step with any timer of the server
        seconds = time.monotonic() - start
        self.emit(
            "single",
            messages=messages,
            rooms=self.arguments.rooms,
            missing=lost,
            cpu=(cost(self.arguments.pid).cpu - cpu) / seconds,
            **quantiles(acknowledged),
            **{f"produced_{name}": value for name, value in quantiles(produced).items()},
        )

    def round(self, kind: str, messages: int, *, rate: float = 0) -> None:
        """Send messages and measure their deliveries.

        Args:
            kind: the name of the result.
            messages: how many.
            rate: messages a second, with latencies measured; 0: as fast as possible.
        """
        pid = self.arguments.pid
        tag = f"{self.tag}-{random.getrandbits(24):06x}"
        self.ask("count", Round(tag=tag, messages=messages, timed=bool(rate), stall=self.arguments.stall))
        before, start = cost(pid), time.monotonic()
        self.producing.send(tag, messages, rate=rate)
        self.answers()
        after, end = cost(pid), time.monotonic()
        parts = [part for part in self.answers() if isinstance(part, Came)]
        unacknowledged = self.producing.finished()
        came = sum(part.came for part in parts)
        last = max(part.last for part in parts) or end
        first = min((part.first for part in parts if part.first), default=end)
        for part in parts:
            self.reasons.update(part.reasons)
        result = {
            "messages": messages,
            "rate": rate,
            "rooms": self.arguments.rooms,
            "came": came,
            "missing": sum(part.missing for part in parts),
            "doubles": sum(part.doubles for part in parts),
            "disordered": sum(part.disordered for part in parts),
            "cut": sum(part.cut for part in parts),
            "unacknowledged": unacknowledged,
            "per_second": came / (last - start),
            "first_after_ms": (first - start) * 1000,
            "cpu": after.cpu - before.cpu,
            "cpu_100k": (after.cpu - before.cpu) / max(came, 1) * 1e5,
            "cores": (after.cpu - before.cpu) / (end - start),
            "loadgen_cores": sum(part.cpu for part in parts) / (end - start),
            "loadgen_busiest": max(part.cpu for part in parts) / (end - start),
            "rss": cost(pid).rss,
            "frames": sum(part.frames for part in parts),
        }
        if rate:
            result |= quantiles([nanoseconds / 1e6 for part in parts for nanoseconds in part.latencies])
        self.emit(kind, **result)

    def emit(self, kind: str, **result: float) -> None:
        """Write a result to stdout and to the file of results."""
        line: dict[str, object] = {"peer": self.arguments.name, "kind": kind, "clients": self.arguments.clients}
        line |= {"processes": self.arguments.processes, **result}
        if self.reasons:
            line["close_frames"] = self.reasons
        shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}
        print(json.dumps(shown), flush=True)
        if self.arguments.results is not None:
            with self.arguments.results.open("a") as file:
                file.write(json.dumps(line) + "\n")


def quantiles(values: list[float]) -> dict[str, float]:
    """Return the usual quantiles by name; empty if there are no values."""
    values = sorted(values)
    parts = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {name: values[min(len(values) - 1, int(len(values) * part))] for name, part in parts.items()} if values else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the server: http://HOST:PORT, or https: whatever its certificate")
    parser.add_argument("--bootstrap", required=True, help="the brokers: HOST:PORT[,…]")
    parser.add_argument("--pid", type=int, required=True, help="of the server, whose cost is measured with that of its descendants")
    parser.add_argument("--name", default="server", help="what the results call it")
    parser.add_argument("--centrifugo", action="store_true", help="the server speaks Centrifugo's protocol")
    parser.add_argument("--query", default="", help="of the clients' addresses: ?meta=1 for kafka-chat.v1")
    parser.add_argument("--topic", default="kafka.chat.global")
    parser.add_argument("--rooms", type=int, default=0, help=f"so many topics, {ROOM_TOPIC}0 and on, which have to be there")
    parser.add_argument("--followed", type=int, default=3, help="rooms that a client follows")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1, help="over which the clients are spread")
    parser.add_argument("--idle", type=float, default=5, help="seconds of doing nothing")
    parser.add_argument("--single", type=int, default=0, help="messages sent one at a time")
    parser.add_argument("--burst", type=int, default=0, help="messages sent as fast as it goes")
    parser.add_argument("--repeat", type=int, default=3, help="bursts")
    parser.add_argument("--rate", type=float, default=0, help="messages a second of the paced round")
    parser.add_argument("--seconds", type=float, default=10, help="of the paced round")
    parser.add_argument("--patience", type=float, default=90, help="seconds until everybody has to have had a first message")
    parser.add_argument("--stall", type=float, default=20, help="seconds without a delivery after which a round is given up")
    parser.add_argument("--results", type=Path, help="a file to which a line of JSON is added for each result")
    Measurement(parser.parse_args()).run()


if __name__ == "__main__":
    main()
