"""Whatever producers put into records, clients get each message once, live and after resuming in the middle of a batch."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from confluent_kafka import Message, Producer

from tests.support.brokers import KafkaCluster
from tests.support.calls import metric, running
from tests.support.chats import Chats, message
from tests.support.deadlines import HANG_SECONDS
from tests.support.noted import Noted, gaps, noted, until_live
from tests.support.resuming_client import ResumingClient
from tests.support.resuming_visit import Cut
from tests.support.serving import Server

BATCH = 200
SMALL_MEMORY = 65_536


@asynccontextmanager
async def batches(kafka: KafkaCluster, **config: str | int) -> AsyncIterator[Producer]:
    """A producer that sends whole batches, so that a client's place is in the middle of one."""
    producer = Producer(
        {
            **kafka.client("batches"),
            "acks": "all",
            "linger.ms": 200,
            "batch.num.messages": BATCH,
            "message.max.bytes": 8_000_000,
            **{name.replace("_", "."): value for name, value in config.items()},
        }
    )
    yield producer
    await trio.to_thread.run_sync(producer.flush, 10)


async def put(producer: Producer, chat: Noted, values: Sequence[bytes], numbers: Sequence[int | None], **more: object) -> list[int]:
    """Produce these in one go, note those that have a number, and return the offsets."""
    offsets: dict[int, int] = {}

    def told(at: int):
        def answered(error: object, produced: Message) -> None:
            assert error is None, error
            offset = produced.offset()
            assert offset is not None
            offsets[at] = offset

        return answered

    producer.list_topics(chat.topic, timeout=HANG_SECONDS)
    for at, value in enumerate(values):
        producer.produce(chat.topic, value, partition=0, on_delivery=told(at), **more)  # type: ignore[arg-type]  # whatever the test says
    assert await trio.to_thread.run_sync(producer.flush, 20) == 0
    for at, number in enumerate(numbers):
        if number is not None:
            chat.note(number, offsets[at])
    return [offsets[at] for at in range(len(values))]


async def numbered(chat: Noted, producer: Producer, count: int, *, padding: str = "", **more: object) -> list[int]:
    """Produce this many messages at once."""
    numbers = [chat.number() for _ in range(count)]
    return await put(producer, chat, [message(f"{number} {padding}") for number in numbers], numbers, **more)


async def resumes_at(chat: Noted, server: Server, offsets: Sequence[int]) -> None:
    """Have a client resume at each of these offsets, and owe it what follows."""
    reader = chat.client("reader", ("from", "earliest"), owed=False)
    reader.keep = True
    reader.journal.owe(chat.lanes[0], 0)
    await reader.come(server.url)
    await chat.get_all(reader)
    ids = {frame.meta.offset: frame.meta.id for frame in reader.frames}
    for offset in offsets:
        client = chat.client(f"user{offset}", owed=False)
        client.journal.owe(chat.lanes[0], offset + 1)
        await client.come(server.url, cursor=ids[offset])
        await until_live(client)
        assert (client.visit.resume, gaps(client)) == ("exact", [])
        await chat.get_all(client)


@pytest.mark.parametrize("by", ["topic", "producer"])
@pytest.mark.parametrize("codec", ["zstd", "lz4", "snappy", "gzip"])
async def test_compressed_batches_are_read_and_resumed_in_the_middle(kafka: KafkaCluster, chats: Chats, codec: str, by: str):
    settings = chats.settings_for(kafka, memory__bytes=SMALL_MEMORY)
    of_topic = {"compression_type": codec} if by == "topic" else {}
    of_producer = {"compression_type": codec} if by == "producer" else {}
    async with (
        running(settings, check_leaks=False) as server,
        noted(kafka, chats, **of_topic) as chat,
        batches(kafka, **of_producer) as producer,
    ):
        live = chat.client("live")
        await live.come(server.url)
        await until_live(live)
        offsets = await numbered(chat, producer, 3 * BATCH, padding="and so on " * 20)
        await chat.get_all(live)
        await resumes_at(chat, server, [offsets[at] for at in (0, 1, BATCH - 1, BATCH, BATCH + BATCH // 2, 3 * BATCH - 2)])


@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "too_large"])
async def test_a_record_of_5_mb_between_small_ones_stops_nobody(kafka: KafkaCluster, chats: Chats, *, allowed: bool):
    settings = chats.settings_for(kafka, memory__bytes=SMALL_MEMORY, limits__message_bytes=6_000_000 if allowed else 1_000_000)
    async with (
        running(settings, check_leaks=False) as server,
        noted(kafka, chats, max_message_bytes=8_000_000) as chat,
        batches(kafka) as producer,
    ):
        live, slow = chat.client("live"), chat.client("slow")
        for client in (live, slow):
            await client.come(server.url)
            await until_live(client)
        before = await numbered(chat, producer, 20)
        number = chat.number()
        await put(producer, chat, [message(f"{number} " + "x" * 5_000_000)], [number if allowed else None])
        after = await numbered(chat, producer, 20)
        await chat.get_all(live, slow)
        await resumes_at(chat, server, [before[-2], before[-1], after[0]])
        rejected = await metric(server.url, 'records_rejected_total{reason="too_large"}')
        assert (rejected == 0) is allowed


@pytest.mark.parametrize("topic_has", ["CreateTime", "LogAppendTime"])
@pytest.mark.promise("p-message-time")
async def test_times_come_as_the_log_has_them(kafka: KafkaCluster, chats: Chats, topic_has: str):
    async with (
        running(chats.settings_for(kafka), check_leaks=False) as server,
        noted(kafka, chats, message_timestamp_type=topic_has, message_timestamp_before_max_ms=2**62) as chat,
        batches(kafka) as producer,
    ):
        client = chat.client()
        client.keep = True
        await client.come(server.url)
        await until_live(client)
        now = time.time_ns() // 1_000_000
        hour_ago = now - 3_600_000
        for timestamp in (hour_ago, 1, -1):
            await numbered(chat, producer, 1, timestamp=timestamp)
        await chat.get_all(client)
        times = [frame.meta.time for frame in client.frames]
        if topic_has == "CreateTime":
            assert times == [hour_ago, 1, None]
        else:
            assert all(told is not None and abs(told - now) < 60_000 for told in times)


@pytest.mark.promise("p-message-time")
async def test_records_without_a_time_are_resumed_and_paged_like_others(kafka: KafkaCluster, chats: Chats):
    async with (
        running(chats.settings_for(kafka, memory__bytes=SMALL_MEMORY), check_leaks=False) as server,
        noted(kafka, chats) as chat,
        batches(kafka) as producer,
    ):
        offsets = await numbered(chat, producer, 5, timestamp=-1)
        offsets += await numbered(chat, producer, 5)
        offsets += await numbered(chat, producer, 5, timestamp=-1)
        await resumes_at(chat, server, offsets[:-1])
        rewound = chat.client("rewound", ("rewind", "7"), owed=False)
        rewound.journal.owe(chat.lanes[0], offsets[-7])
        await rewound.come(server.url)
        await chat.get_all(rewound)
        since = chat.client("since", ("from", "-1h"), owed=False)
        await since.come(server.url)
        await until_live(since)
        await chat.produce(1)
        since.journal.owe(chat.lanes[0], offsets[5])
        await chat.get_all(*chat.clients)


@pytest.mark.promise("p-message-key")
async def test_keys_and_headers_that_are_null_or_no_text_come_as_they_are(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka), check_leaks=False) as server, noted(kafka, chats) as chat, batches(kafka) as producer:
        client = chat.client()
        client.keep = True
        await client.come(server.url)
        await until_live(client)
        said: list[tuple[dict[str, object], object, object]] = [
            ({}, None, []),
            ({"key": b""}, "", []),
            ({"key": b"ann"}, "ann", []),
            ({"key": b"\xff"}, {"base64": "/w=="}, []),
            ({"headers": [("trace", None)]}, None, [["trace", None]]),
            ({"headers": [("a", b""), ("a", b"1"), ("b", b"\xfe")]}, None, [["a", ""], ["a", "1"], ["b", {"base64": "/g=="}]]),
            ({"headers": [("", b"x"), ('"\n', b'"}\n')]}, None, [["", "x"], ['"\n', '"}\n']]),
        ]
        for more, _, _ in said:
            await numbered(chat, producer, 1, **more)
        await chat.get_all(client)
        assert [(frame.meta.key, frame.meta.headers) for frame in client.frames] == [(key, headers) for _, key, headers in said]


async def test_what_is_no_message_is_skipped_and_moves_the_place(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka), check_leaks=False) as server, noted(kafka, chats) as chat, batches(kafka) as producer:
        client = chat.client()
        await client.come(server.url)
        await until_live(client)
        await numbered(chat, producer, 2)
        await put(producer, chat, [b"", b"{}", b"\xff", json.dumps({"sender": 1, "text": "9 "}).encode()], [None] * 4)
        await numbered(chat, producer, 2)
        await chat.get_all(client)
        await client.cut(Cut.RESET)
        await put(producer, chat, [b"no message"] * 3, [None] * 3)
        await come_back(client, server)
        assert client.visit.resume == "exact"
        await client.cut(Cut.RESET)
        await chat.trim(7)
        await numbered(chat, producer, 1)
        await come_back(client, server)
        await chat.get_all(client)


async def come_back(client: ResumingClient, server: Server) -> None:
    await client.come(server.url)
    await until_live(client)
