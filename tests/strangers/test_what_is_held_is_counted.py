"""Everything kept of Kafka is counted: whatever makes records large, the process grows by at most memory.bytes.

docs/operations.md, "Sizing", has the sum: 1.3 times memory.bytes, what a socket costs, and what librdkafka holds ahead.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from tests.support.brokers import KafkaCluster
from tests.support.calls import metrics
from tests.support.chats import Chats
from tests.support.clients import open_chat
from tests.support.http_client import http
from tests.support.serving import ChildServer, spawned, until_ready
from tests.support.v1_client import open_v1

PATIENCE_SECONDS = 100.0
MEMORY_BYTES = 8 << 20
LIBRDKAFKA_BYTES = 64 << 20  # the formula, for one broker, one consumer of the live end, four of pages, that of the subscriptions
SOCKET_BYTES = 256 << 10  # of one that catches up, by what is in its kernel's and its own hands
RECORDS = 1_600
FILTERING = ("ann", "bob")
LARGE = 60_000  # bytes: all of it is 96 MB, more than a process may grow by; keys that nobody counted made it 155


def resident(server: ChildServer) -> int:
    """The bytes of a process that are in memory."""
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * 4096


def large(number: int) -> str:
    return f"{number:08d}" * (LARGE // 8)


def value(number: int, sender: str) -> bytes:
    return json.dumps({"sender": sender, "text": f"{number}"}).encode()


async def follow(url: str, user: str, *parameters: tuple[str, str], task_status: trio.TaskStatus[None]) -> None:
    """Read what comes until cancelled."""
    async with open_v1(url, user, *parameters) as client:
        await client.control("live", seconds=PATIENCE_SECONDS)
        task_status.started()
        await client.closed(seconds=10 * PATIENCE_SECONDS)


@pytest.mark.deadline(240)
@pytest.mark.parametrize("by", ["keys", "header names", "senders"])
@pytest.mark.promise("p-memory")
async def test_96_mb_of_records_that_are_large_by_anything_leave_a_process_within_its_memory(
    kafka: KafkaCluster, chats: Chats, by: str
) -> None:
    topic = chats.topic("global")
    kafka.create_topic(topic)

    def produce() -> None:
        for first in range(0, RECORDS, 100):
            texts = [large(number) for number in range(first, first + 100)]
            values = [value(first + at, text if by == "senders" else "ann") for at, text in enumerate(texts)]
            headers = [(texts[0], b"x")] if by == "header names" else None
            kafka.produce_many(topic, values, key=texts[0] if by == "keys" else None, headers=headers)

    settings = chats.settings_for(kafka, memory__bytes=MEMORY_BYTES)
    async with spawned(settings=settings) as server:
        await until_ready(server)
        before = resident(server)
        async with trio.open_nursery() as nursery, open_chat(server.url, "canary") as bare:
            for user in FILTERING:
                await nursery.start(follow, server.url, user, ("sender", "nobody"))
            await trio.to_thread.run_sync(produce)
            await bare.take_until(f"{RECORDS - 1}", seconds=PATIENCE_SECONDS)
            await nursery.start(follow, server.url, "back", ("rewind", "100"))
            for direction in ("forward", "backward"):
                answer = await http(server.url, "GET", f"/history/global?direction={direction}&limit=1000", seconds=PATIENCE_SECONDS)
                assert answer.status == 200, answer
            nursery.cancel_scope.cancel()
        grown = resident(server) - before
        counted = (await metrics(server.url))["kafka_chat_memory_held_bytes"]
    most = 1.3 * MEMORY_BYTES + (len(FILTERING) + 2) * SOCKET_BYTES + LIBRDKAFKA_BYTES
    assert counted <= MEMORY_BYTES
    assert grown <= most, f"{grown:,} bytes more, of which {counted:,.0f} are counted"
