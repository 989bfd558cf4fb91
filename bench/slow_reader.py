"""One client that never reads, among many: `python -m bench.slow_reader URL --bootstrap HOST:PORT --pid PID …`.

Does it delay the others, does the server's memory grow, is it disconnected, and when? Round 1 is the control: readers only.
Then a client with a receive buffer of 4 kB joins, and reads nothing. Round 2 goes to all. Then it watches until the server's
end of the slow connection leaves ESTABLISHED (the slow client does not see the end before it has read everything else).
Round 3 repeats round 2. Messages times size must exceed the kernel's buffer of a socket (tcp_wmem, 4 MB).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from urllib.parse import urlsplit

from .crowd import Client, Crowd, Take, totals
from .processes import cost
from .producer import Producing

TCP_STATES = {1: "ESTABLISHED", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 8: "CLOSE_WAIT"}


def server_end(server_port: int, client_port: int) -> tuple[str, int]:
    """Return the state of the server's socket to our port, and the bytes in its send queue."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].split(":")[1], 16) == server_port and int(words[2].split(":")[1], 16) == client_port:
            state = int(words[3], 16)
            return TCP_STATES.get(state, str(state)), int(words[4].split(":")[0], 16)
    return "gone", 0


class SlowReader:
    """The measurement."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.tag = f"{random.getrandbits(32):08x}"
        self.crowd = Crowd()
        self.producing = Producing(arguments.bootstrap, arguments.topic)
        server = urlsplit(arguments.url)
        assert server.hostname is not None
        assert server.port is not None
        self.host: str = server.hostname
        self.port: int = server.port
        self.peak = 0.0
        self.slow_port: int | None = None
        self.left: float | None = None

    def run(self) -> None:
        """Measure, and print a line of JSON."""
        pid, crowd = self.arguments.pid, self.crowd
        readers = self.join(self.arguments.clients)
        self.feed(readers)
        files = cost(pid).files
        rounds = [self.round("one", readers)]
        (slow,) = self.join(1, receive_buffer=4096)
        crowd.ignore(slow)
        self.slow_port = slow.socket.getsockname()[1]
        self.watch(5)
        began = time.monotonic()
        rounds.append(self.round("two", readers))
        _, queued = server_end(self.port, self.slow_port)
        while self.left is None and time.monotonic() - began < self.arguments.watch:
            self.watch(0.2)
        state, _ = server_end(self.port, self.slow_port)
        rounds.append(self.round("three", readers))
        result = {
            "peer": self.arguments.name,
            "kind": "slow",
            "clients": self.arguments.clients,
            "messages": self.arguments.messages,
            "size": self.arguments.size,
            "rounds": rounds,
            "readers_cut": crowd.cut,
            "slow_state": state,
            "slow_left_seconds": None if self.left is None else self.left - began,
            "slow_queued_in_kernel": queued,
            "files": [files, cost(pid).files],
            "close_frames": crowd.reasons,
        }
        print(json.dumps(result), flush=True)
        if self.arguments.results is not None:
            with self.arguments.results.open("a") as file:
                file.write(json.dumps(result) + "\n")
        crowd.close()
        self.producing.close()

    def join(self, count: int, *, receive_buffer: int | None = None) -> list[Client]:
        """Connect `count` more clients."""
        return self.crowd.connect(self.host, self.port, count, receive_buffer=receive_buffer)

    def feed(self, readers: list[Client]) -> None:
        """Send a message again and again until every reader has received one."""
        mark = f"{self.tag}-probe".encode()

        def take(client: Client, data: bytes) -> None:
            client.fed = client.fed or mark in data

        deadline = time.monotonic() + 60
        while not all(client.fed for client in readers):
            if time.monotonic() > deadline:
                raise RuntimeError("not everybody had a first message within 60 s")
            self.producing.send(f"{self.tag}-probe", 1)
            self.producing.finished()
            self.crowd.pump_for(0.5, take)
        self.crowd.pump_for(1.5)

    def round(self, name: str, readers: list[Client]) -> dict[str, float]:
        """Send all messages, and wait until the readers have them."""
        tag = f"{self.tag}-{name}"
        expected = b"".join(b"%08d" % number for number in range(self.arguments.messages))
        for client in readers:
            client.begin_round()
        before = self.peak = cost(self.arguments.pid).rss
        start = time.monotonic()
        self.producing.send(tag, self.arguments.messages, rate=self.arguments.rate, padding=self.arguments.size)

        def take(client: Client, data: bytes) -> None:
            if numbers := _numbers(data, tag.encode()):
                client.take(numbers, expected)

        while time.monotonic() - start < 120 and any(client.had < self.arguments.messages for client in readers):
            self.watch(0.2, take)
        seconds = time.monotonic() - start
        self.producing.finished()
        return {"seconds": seconds, "rss_before": before, "rss_peak": self.peak, **totals(readers, self.arguments.messages)}

    def watch(self, seconds: float, take: Take = lambda client, data: None) -> None:
        """Hand over what comes; note the server's memory, and when it disconnects the slow client."""
        self.crowd.pump_for(seconds, take)
        self.peak = max(self.peak, cost(self.arguments.pid).rss)
        if self.slow_port is not None and self.left is None and server_end(self.port, self.slow_port)[0] != "ESTABLISHED":
            self.left = time.monotonic()


def _numbers(data: bytes, tag: bytes) -> list[bytes]:
    mark, found, position = tag + b".", [], 0
    while (position := data.find(mark, position)) >= 0:
        position += len(mark)
        found.append(data[position : position + 8])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the server: http://HOST:PORT")
    parser.add_argument("--bootstrap", required=True, help="the brokers: HOST:PORT[,…]")
    parser.add_argument("--pid", type=int, required=True, help="of the server")
    parser.add_argument("--name", default="server", help="what the results call it")
    parser.add_argument("--topic", default="kafka.chat.global")
    parser.add_argument("--clients", type=int, default=49, help="that read")
    parser.add_argument("--messages", type=int, default=5000, help="a round")
    parser.add_argument("--size", type=int, default=2000, help="bytes of text, about")
    parser.add_argument("--rate", type=float, default=1000, help="messages a second; 0: as fast as it goes")
    parser.add_argument("--watch", type=float, default=60, help="seconds until the slow one is given up on")
    parser.add_argument("--results", type=Path, help="a file to which a line of JSON is added")
    arguments = parser.parse_args()
    SlowReader(arguments).run()


if __name__ == "__main__":
    main()
