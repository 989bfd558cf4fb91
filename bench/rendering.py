"""Measures the cost of a message without Kafka and sockets, on one core: `python -m bench.rendering`.

The records a second that are decoded and rendered into frames, by batch size, compared with msgspec's decoding alone; and
what a deflated rendering shared by all clients, so without context takeover (RFC 7692), would cost and save. Prints two
tables in Markdown, medians of several rounds.
"""

from __future__ import annotations

import re
import time
import zlib
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from kafka_chat.chat.message import Message
from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.delivery.records.batch import Batch
from kafka_chat.delivery.records.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 9
RECORDS = 20_000
SYNC = b"\x00\x00\xff\xff"  # the end of a flush, which a message of permessage-deflate leaves out
KEY = PartitionKey("kafka.chat.global", "AAAAAAAAAAAAAAAAAAAAAA", 0)
SENDERS = ("alice", "bob", "carol", "dave", "erin")
WORDS = tuple(re.findall(r"\S+", "has anybody seen the figures of last night, they look rather good to me and I would ship it today"))


def texts(count: int) -> list[str]:
    """Return `count` different texts of about 95 bytes."""
    return [" ".join([f"{n:06d}", *(WORDS[(n * step + step) % len(WORDS)] for step in range(1, 21))])[:95] for n in range(count)]


def records(count: int) -> list[Record]:
    """Return `count` records as clients send them."""
    values = [
        msgspec.json.encode({"sender": SENDERS[n % len(SENDERS)], "text": text, "tag": "t", "topic": KEY.topic})
        for n, text in enumerate(texts(count))
    ]
    return [Record(offset, value, 1_700_000_000_000 + offset, None, None) for offset, value in enumerate(values)]


def per_second(count: int, run: Callable[[], object]) -> float:
    """Return how many of the `count` items `run` handles per second of CPU, as a median."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        run()
        found.append(count / (time.process_time() - began))
    return median(found)


def render(taken: list[Record], size: int) -> list[Batch]:
    """Decode and render in batches of `size`."""
    return [
        Batch.decode(taken[low : low + size], KEY, first=low, next=low + size, chat="global", max_bytes=65_536)
        for low in range(0, len(taken), size)
    ]


def deflated(payload: bytes, level: int) -> bytes:
    """Return a message as permessage-deflate encodes it without context takeover."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(SYNC)


def main() -> None:
    taken = records(RECORDS)
    decode = msgspec.json.Decoder(Message).decode
    values = [record.value for record in taken if record.value is not None]
    alone = per_second(RECORDS, lambda: [decode(value) for value in values])
    print("| what | records/s on one core | of msgspec's decoding alone |\n|---|---|---|")
    print(f"| `msgspec.json.Decoder(Message).decode` alone | {alone:,.0f} | 1 |")
    for size in (1, 10, 100, 1000):
        rate = per_second(RECORDS, lambda size=size: render(taken, size))  # type: ignore[misc]  # mypy has no type for a default
        print(f"| `Batch.decode`, {size} a batch | {rate:,.0f} | {rate / alone:.2f} |")

    print("\n| a text message | bytes each | of plain | µs to deflate |\n|---|---|---|---|")
    frames = [batch.whole().data for batch in render(taken[:5000], 1)]
    payloads = [frame[2:] if len(frame) < 128 else frame[4:] for frame in frames]
    plain = sum(map(len, frames)) / len(frames)
    print(f"| plain frame | {plain:.0f} | 1 | 0 |")
    for level in (1, 6):
        mean = sum(len(deflated(payload, level)) + 2 for payload in payloads) / len(payloads)
        cost = 1e6 / per_second(len(payloads), lambda level=level: [deflated(payload, level) for payload in payloads])  # type: ignore[misc]
        print(f"| alone, level {level} | {mean:.0f} | {mean / plain:.2f} | {cost:.1f} |")


if __name__ == "__main__":
    main()
