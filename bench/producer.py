"""The sending side of a measurement, in a process of its own: `python -m bench.producer BOOTSTRAP TOPIC [CHANNEL]`.

Reads a JSON object a line: `{"tag", "messages", "rate", "padding"}`; sends that many messages, rate a second (0: as fast
as it goes), and answers with a line, the number that was not acknowledged. Each text is `tag.number.nanoseconds. padding`
with CLOCK_MONOTONIC, so that loss, doubles, order and latency are exact.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from confluent_kafka import KafkaError, Message, Producer

from .crowd import CENTRIFUGO_CHANNEL

WORDS = "hello everyone, this is a chat message, about a hundred bytes long"


class Producing:
    """The child process, as the load generator has it."""

    def __init__(self, bootstrap: str, topic: str, *, centrifugo: bool = False) -> None:
        command = [sys.executable, "-m", "bench.producer", bootstrap, topic, *([CENTRIFUGO_CHANNEL] if centrifugo else [])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()  # it has met the topic

    def send(self, tag: str, messages: int, *, rate: float = 0, padding: int = 0) -> None:
        """Begin to send; `finished` says when all are acknowledged.

        Args:
            tag: what their texts begin with.
            messages: how many.
            rate: a second; 0: as fast as it goes.
            padding: how many bytes are added to each text.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"tag": tag, "messages": messages, "rate": rate, "padding": padding}) + "\n")
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
        return int(line)


def main() -> None:
    bootstrap, topic, *channels = sys.argv[1:]
    # Centrifugo is told by it where to.
    headers: list[tuple[str, str | bytes | None]] = [("centrifugo-channels", channel) for channel in channels]
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 1, "acks": "all", "queue.buffering.max.messages": 1_000_000})
    producer.list_topics(topic, timeout=10)
    print(0, flush=True)
    refused = 0

    def acknowledged(error: KafkaError | None, _: Message) -> None:
        nonlocal refused
        refused += error is not None

    for line in sys.stdin:
        order = json.loads(line)
        refused, start = 0, time.monotonic()
        words = WORDS + "x" * order["padding"]
        for number in range(order["messages"]):
            if order["rate"]:
                due = start + number / order["rate"]
                while (wait := due - time.monotonic()) > 0:
                    producer.poll(0)
                    time.sleep(min(wait, 0.05))
            text = f"{order['tag']}.{number:08d}.{time.monotonic_ns():016d}. {words}"
            value = json.dumps({"sender": "alice", "text": text, "tag": "t", "topic": topic}).encode()
            while True:
                try:
                    producer.produce(topic, value, key=b"k", headers=headers, on_delivery=acknowledged)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        print(producer.flush(60) + refused, flush=True)


if __name__ == "__main__":
    main()
