"""The sending side of a measurement, in its own process: `python -m bench.producer BOOTSTRAP TOPIC [ROOMS]`.

Reads a JSON object per line: `{"tag", "first", "messages", "rate", "padding"}`; sends that many messages, `rate` a second (0:
as fast as possible), and answers with a line: how many were not acknowledged, and when the last one was. Each text is
`tag.number.nanoseconds. padding` with CLOCK_MONOTONIC, so that losses, duplicates, order and latency are exact. With rooms,
TOPIC is the prefix of their topics, and `rooms.room_of` chooses the room of each message.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from confluent_kafka import KafkaError, Message, Producer

from .rooms import channel_of, room_of

WORDS = "hello everyone, this is a chat message, about a hundred bytes long"


class Producing:
    """The load generator's handle of the child process."""

    def __init__(self, bootstrap: str, topic: str, *, rooms: int = 0) -> None:
        command = [sys.executable, "-m", "bench.producer", bootstrap, topic, str(rooms)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.acknowledged_ns = 0  # when the last message of the last answer was, by CLOCK_MONOTONIC
        self._answer()  # it has the topic's metadata

    def send(self, tag: str, messages: int, *, first: int = 0, rate: float = 0, padding: int = 0) -> None:
        """Start sending; `finished` returns once all are acknowledged.

        Args:
            tag: the prefix of their texts.
            messages: how many.
            first: the first one's number.
            rate: messages a second; 0: as fast as possible.
            padding: how many bytes are added to each text.
        """
        assert self._process.stdin is not None
        order = {"tag": tag, "first": first, "messages": messages, "rate": rate, "padding": padding}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def finished(self) -> int:
        """Wait until the messages of the oldest `send` are acknowledged; return how many are not."""
        return self._answer()

    def close(self) -> None:
        """End the child."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(70)

    def _answer(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the producer has ended")
        unacknowledged, self.acknowledged_ns = map(int, line.split())
        return unacknowledged


def main() -> None:
    bootstrap, topic, rooms = sys.argv[1], sys.argv[2], int(sys.argv[3])
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 1, "acks": "all", "queue.buffering.max.messages": 1_000_000})
    topics = [f"{topic}{room}" for room in range(rooms)] or [topic]
    # The header names the channel for Centrifugo.
    headers: list[list[tuple[str, str | bytes | None]]] = [[("centrifugo-channels", channel_of(name))] for name in topics]
    for name in topics:
        producer.list_topics(name, timeout=10)
    refused = acknowledged_ns = 0

    def acknowledged(error: KafkaError | None, _: Message) -> None:
        nonlocal refused, acknowledged_ns
        refused += error is not None
        acknowledged_ns = time.monotonic_ns()

    print(refused, acknowledged_ns, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        refused, start = 0, time.monotonic()
        words = WORDS + "x" * order["padding"]
        for number in range(order["first"], order["first"] + order["messages"]):
            if order["rate"]:
                due = start + (number - order["first"]) / order["rate"]
                while (wait := due - time.monotonic()) > 0:
                    producer.poll(0)
                    time.sleep(min(wait, 0.05))
            room = room_of(number, rooms) if rooms else 0
            text = f"{order['tag']}.{number:08d}.{time.monotonic_ns():016d}. {words}"
            value = json.dumps({"sender": "alice", "text": text, "tag": "t", "topic": topics[room]}).encode()
            while True:
                try:
                    producer.produce(topics[room], value, key=b"k", headers=headers[room], on_delivery=acknowledged)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        unacknowledged = producer.flush(60) + refused
        print(unacknowledged, acknowledged_ns, flush=True)


if __name__ == "__main__":
    main()
