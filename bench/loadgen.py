"""Measures one server: `python -m bench.loadgen URL --bootstrap HOST:PORT --pid PID --clients N …`.

It connects the clients, sends messages until each has had one, then bursts (`--burst MESSAGES`, `--repeat`), then a paced
round (`--rate`, `--seconds`) which gives latencies from before the produce to after the read. A line of JSON for each.

Deliveries a second are counted from the first message produced to the last delivery, so what a server holds back before
it sends counts, too.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import time
from pathlib import Path
from urllib.parse import urlsplit

from .crowd import Client, Crowd, totals
from .processes import cost
from .producer import Producing

IDLE_SECONDS = 5.0
QUIET_SECONDS = 1.5


class Measurement:
    """One server under one crowd."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.tag = f"{random.getrandbits(32):08x}"
        self.producing = Producing(arguments.bootstrap, arguments.topic, centrifugo=arguments.centrifugo)
        self.crowd = Crowd(centrifugo=arguments.centrifugo)

    def run(self) -> None:
        """Measure all that was asked for."""
        self.connect()
        if self.arguments.burst:
            for _ in range(self.arguments.repeat):
                self.round("burst", self.arguments.burst)
        if self.arguments.rate:
            self.round("paced", int(self.arguments.rate * self.arguments.seconds), rate=self.arguments.rate)
        self.crowd.close()
        self.producing.close()

    def connect(self) -> None:
        """Connect everybody; measure what that costs, and what they cost while nothing happens, before and after a first message."""
        pid, count = self.arguments.pid, self.arguments.clients
        server = urlsplit(self.arguments.url)
        assert server.hostname is not None
        assert server.port is not None
        before, start = cost(pid), time.monotonic()
        self.crowd.connect(server.hostname, server.port, count)
        handshakes = time.monotonic() - start
        self.crowd.pump_for(QUIET_SECONDS)
        connected = cost(pid)
        fed, fed_seconds = self.feed()
        quiet = cost(pid)
        self.crowd.pump_for(IDLE_SECONDS)
        idle = cost(pid)
        self.emit(
            "idle",
            handshake_seconds=handshakes,
            connect_cpu_ms=(connected.cpu - before.cpu) / count * 1000,
            connected_kib=(connected.rss - before.rss) * 1024 / count,
            fed=fed,
            fed_seconds=fed_seconds,
            idle_kib=(idle.rss - before.rss) * 1024 / count,
            idle_cpu=(idle.cpu - quiet.cpu) / IDLE_SECONDS,
            rss_before=before.rss,
            rss=idle.rss,
            threads=idle.threads,
            files=idle.files,
            cut=self.crowd.cut,
        )

    def feed(self) -> tuple[int, float]:
        """Send a message again and again until everybody has had one, then wait until all is quiet.

        Returns:
            How many have had one, and after how many seconds.
        """
        mark, fed = f"{self.tag}-probe".encode(), 0
        last_came = start = time.monotonic()

        def take(client: Client, data: bytes) -> None:
            nonlocal fed, last_came
            last_came = time.monotonic()
            if not client.fed and mark in data:
                client.fed = True
                fed += 1

        sent = 0.0
        while fed < self.crowd.open and time.monotonic() - start < self.arguments.patience:
            if time.monotonic() - sent > max(0.25, self.arguments.clients / 400):
                sent = time.monotonic()
                self.producing.send(f"{self.tag}-probe", 1)
                self.producing.finished()
            self.crowd.pump(0.05, take)
        seconds = time.monotonic() - start
        last_came = time.monotonic()
        while time.monotonic() - last_came < QUIET_SECONDS:
            self.crowd.pump(0.1, take)
        return fed, seconds

    def round(self, kind: str, messages: int, *, rate: float = 0) -> None:
        """Send messages and measure how they come.

        Args:
            kind: what the result is called.
            messages: how many.
            rate: a second, and then latencies are measured; 0: as fast as it goes.
        """
        crowd, pid, count = self.crowd, self.arguments.pid, self.arguments.clients
        tag = f"{self.tag}-{random.getrandbits(24):06x}"
        find_numbers = re.compile(tag.encode() + rb"\.(\d{8})\.").findall
        find_numbers_and_times = re.compile(tag.encode() + rb"\.(\d{8})\.(\d{16})\.").findall
        expected = b"".join(b"%08d" % number for number in range(messages))
        for client in crowd.clients:
            client.begin_round()
        crowd.frames, cut_before = 0, crowd.cut
        came = complete = 0
        first = last = 0.0
        latencies: list[int] = []

        def take(client: Client, data: bytes) -> None:
            nonlocal came, complete, first, last
            if rate:
                now = time.monotonic_ns()
                found = find_numbers_and_times(data)
                latencies.extend([now - int(sent) for _, sent in found])
                numbers = [number for number, _ in found]
            else:
                numbers = find_numbers(data)
            if numbers:
                last = time.monotonic()
                first = first or last
                came += len(numbers)
                had = client.had
                client.take(numbers, expected)
                complete += had < messages == client.had

        before, own_before, start = cost(pid), _own_cpu(), time.monotonic()
        self.producing.send(tag, messages, rate=rate)
        while complete < count and crowd.open and time.monotonic() - (last or start) < self.arguments.stall:
            crowd.pump(0.2, take)
        after, own_after, end = cost(pid), _own_cpu(), time.monotonic()
        crowd.pump_for(0.7, take)  # what comes twice comes now
        unacknowledged = self.producing.finished()
        result = {
            "messages": messages,
            "rate": rate,
            "came": came,
            **totals(crowd.clients, messages),
            "cut": crowd.cut - cut_before,
            "unacknowledged": unacknowledged,
            "per_second": came / ((last or end) - start),
            "first_after_ms": ((first or end) - start) * 1000,
            "cpu": after.cpu - before.cpu,
            "cpu_100k": (after.cpu - before.cpu) / max(came, 1) * 1e5,
            "cores": (after.cpu - before.cpu) / (end - start),
            "loadgen_cores": (own_after - own_before) / (end - start),
            "rss": cost(pid).rss,
            "frames": crowd.frames,
        }
        if latencies:
            latencies.sort()
            for name, part in {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}.items():
                result[name] = latencies[min(len(latencies) - 1, int(len(latencies) * part))] / 1e6
        self.emit(kind, **result)

    def emit(self, kind: str, **result: float) -> None:
        """Write a result: as a line on stdout, and into the file of results."""
        line = {"peer": self.arguments.name, "kind": kind, "clients": self.arguments.clients, **result}
        if self.crowd.reasons:
            line["close_frames"] = self.crowd.reasons
        shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}
        print(json.dumps(shown), flush=True)
        if self.arguments.results is not None:
            with self.arguments.results.open("a") as file:
                file.write(json.dumps(line) + "\n")


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the server: http://HOST:PORT")
    parser.add_argument("--bootstrap", required=True, help="the brokers: HOST:PORT[,…]")
    parser.add_argument("--pid", type=int, required=True, help="of the server, whose cost is measured with that of its descendants")
    parser.add_argument("--name", default="server", help="what the results call it")
    parser.add_argument("--centrifugo", action="store_true", help="the server speaks Centrifugo's protocol")
    parser.add_argument("--topic", default="kafka.chat.global")
    parser.add_argument("--clients", type=int, default=100)
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
