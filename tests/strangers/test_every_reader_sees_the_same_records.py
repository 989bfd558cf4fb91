"""Arbitrary records: every kind of reader gets the same messages, live and past, forward and backward."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from random import Random
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from confluent_kafka import Producer

from tests.support.brokers import KafkaCluster
from tests.support.calls import metric, running, until
from tests.support.chats import Chats, message
from tests.support.clients import open_chat, receive_path
from tests.support.events_client import open_events
from tests.support.http_client import http
from tests.support.raw_produce import NO_TIME, RawRecord, produce_raw
from tests.support.v1_client import Frame, open_v1

PATIENCE_SECONDS = 60.0
SMALL_MEMORY = 65_536  # so that what is past is read from Kafka again
LATER_THAN_ANY = 1 << 62
KEYS: Sequence[bytes | None] = (None, b"", b"k", "é".encode(), b"\xff\xfe", b"\x00", b"\x01" * 70_000, b"k" * 900_000, b'"}\n\ndata: x\n\n')
HEADERS: Sequence[Sequence[tuple[bytes, bytes | None]]] = (
    (),
    ((b"trace", b"7f"),),
    ((b"", b""), (b"", None)),
    ((b"\xdf", b"x"), (b"a", b"\xff")),
    tuple((b"h%d" % number, b"v" * 100) for number in range(1500)),
    ((b"__TypeId__", b"com.example.Message"), (b"big", b"v" * 200_000)),
)
WRITTEN_BY: Sequence[bytes] = (  # what no reader shows: there is no message in it
    b"",
    b"\x00\x00\x00\x00\x2a" + message("Confluent's serializers: a byte 0 and a schema's number in front"),
    b"\xef\xbb\xbf" + message("a byte order mark"),
    message("UTF-16").decode().encode("utf-16"),
    json.dumps(message("twice JSON").decode()).encode(),
    b"[" + message("a list") + b"]",
    b'{"Sender":"PascalCase","Text":"x"}',
    b'{"sender":"a","text":"x","score":NaN}',
    b'{"sender":"a","text":null}',
    b"\xa2\x66sender\x61a\x64text\x61x",  # CBOR
    b"\x82\xa6sender\xa1a\xa4text\xa1x",  # MessagePack
    message("x")[:-1],
    b"\xac\xed\x00\x05t\x00\x01x",  # Java's own
)


def value_of(text: str, dice: Random) -> bytes:
    """A message, as one of many serializers writes it."""
    said: dict[str, Any] = {"sender": dice.choice(["ann", "José", "\u202e", "\0", ""]), "text": text}
    if dice.random() < 0.5:
        said["tag"] = dice.choice(["blue", None, "", "\n"])
    said |= dice.choice([{}, {"topic": 7}, {"chat": "elsewhere", "meta": {"id": "x"}}, {"n": [[1e300] * 9] * 9}])
    written = dice.choice(
        [
            lambda: json.dumps(said).encode(),
            lambda: json.dumps(said, ensure_ascii=False).encode(),
            lambda: json.dumps(said, indent=4, sort_keys=True).encode(),
            lambda: json.dumps(said, separators=(",", ":")).encode() + b"\r\n",
            lambda: b"\t" + json.dumps(said)[:-1].encode() + b',"tag":null,"tag":"blue","n":1e999,"n":' + b"9" * 500 + b"}",
        ]
    )
    return written()


def raw_records(texts: Sequence[str], dice: Random, now: int) -> tuple[list[RawRecord], list[str]]:
    """Return records with these messages among them, and what is no message between; and the texts in order."""
    times = [NO_TIME, 0, 1, now, now - 60_000, now + 3_600_000, LATER_THAN_ANY]
    records, expected = [], []
    for text in texts:
        while dice.random() < 0.3:
            records.append(RawRecord(value=dice.choice([None, *WRITTEN_BY]), key=b"k", time_ms=dice.choice(times)))
        key, headers = dice.choice(KEYS), dice.choice(HEADERS)
        records.append(RawRecord(value=value_of(text, dice), key=key, headers=headers, time_ms=dice.choice(times)))
        expected.append(text)
    return records, expected


async def page(url: str, headers: dict[str, str] | None = None, **query: object) -> dict[str, Any]:
    named = {"from" if name == "begin" else name: value for name, value in query.items()}
    answer = await http(url, "GET", f"/history/global?{urlencode(named)}", headers=headers, seconds=PATIENCE_SECONDS)
    assert answer.status == 200, answer
    body: dict[str, Any] = answer.json()  # type: ignore[assignment]  # as docs/protocol.md has it
    return body


async def pages(url: str, *, backward: bool = False, **query: object) -> list[Frame]:
    """All messages of the chat, oldest first, by following cursors to the end."""
    found: list[Frame] = []
    direction = {"direction": "backward"} if backward else {}
    body = await page(url, **query, **direction)
    while True:
        assert not body["gaps"]
        found = [*body["messages"], *found] if backward else [*found, *body["messages"]]
        if body["end"]:
            return found
        kept = {name: value for name, value in query.items() if name != "begin"}
        body = await page(url, cursor=body["prev" if backward else "next"], **kept, **direction)


async def frames_of(url: str, user: str, last: str, *asked: tuple[str, str]) -> list[Frame]:
    """What a client of v1 gets up to a text."""
    async with open_v1(url, user, *asked) as client:
        with trio.fail_after(PATIENCE_SECONDS):
            while (await client.next(seconds=PATIENCE_SECONDS)).get("text") != last:
                pass
        return [frame for frame in client.frames if "text" in frame or frame["meta"].get("type") == "skipped"]


async def events_of(url: str, user: str, last: str, **asked: str) -> list[Frame]:
    """What an event stream has up to a text."""
    async with open_events(url, user, urlencode({"from" if name == "begin" else name: value for name, value in asked.items()})) as stream:
        found: list[Frame] = []
        with trio.fail_after(PATIENCE_SECONDS):
            while not found or found[-1].get("text") != last:
                event = await stream.next(seconds=PATIENCE_SECONDS)
                if event.name in ("message", "skipped"):
                    found.append(json.loads(event.data))
        return found


async def bare_of(url: str, user: str, last: str, query: str) -> list[str]:
    async with open_chat(url, user, path=f"{receive_path(user)}?{query}") as client:
        return [one.text for one in await client.take_until(last, seconds=PATIENCE_SECONDS)]


async def all_begun(url: str) -> bool:
    """Whether it is fixed from where on each of the three sessions delivers."""
    return await metric(url, "sessions") == 3


@pytest.mark.parametrize("seed", [1])
async def test_every_form_of_reader_has_the_same_messages_live_and_past(kafka: KafkaCluster, chats: Chats, seed: int) -> None:
    dice, topic, now = Random(seed), chats.topic("global"), time.time_ns() // 1_000_000
    kafka.create_topic(topic, message_timestamp_after_max_ms=2**62, message_timestamp_before_max_ms=2**62, max_message_bytes=4_000_000)
    live: dict[str, Any] = {}
    polls = trio.Event()
    async with running(chats.settings_for(kafka, memory__bytes=SMALL_MEMORY), check_leaks=False) as server, trio.open_nursery() as nursery:
        url = server.url

        async def listen(name: str, reader: Any, *asked: object) -> None:
            live[name] = await reader(url, name, "the last", *asked)

        async def poll() -> None:
            cursor, found = (await page(url))["next"], []
            polls.set()
            while not found or found[-1]["text"] != "the last":
                body = await page(url, {"prefer": "wait=30"}, cursor=cursor)
                cursor, found = body["next"], found + body["messages"]
            live["poll"] = found

        for name, reader, *asked in (("v1", frames_of), ("events", events_of), ("bare", bare_of, "")):
            nursery.start_soon(listen, name, reader, *asked)
        nursery.start_soon(poll)
        await polls.wait()
        await until(lambda: all_begun(url))

        expected: list[str] = []
        for part, codec in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
            records, texts = raw_records([f"{part}-{number}" for number in range(6)], dice, now)
            while records:  # several to a batch, whose times go up and down; a batch may have a few keys of 900 kB
                produce_raw(kafka.bootstrap, topic, records[:3])
                del records[:3]
            expected += texts
            producer = Producer({**kafka.client("codec"), "compression.type": codec, "linger.ms": 50})
            for number in range(20):
                expected.append(f"{part} {codec} {number}")
                producer.produce(topic, value_of(expected[-1], dice), b"k", 0, timestamp=now - 1000 * number)
            assert await trio.to_thread.run_sync(producer.flush, PATIENCE_SECONDS) == 0
            with kafka.transaction() as kept:
                kept.produce(topic, message(f"{part} committed"), partition=0)
            lost = kafka.transaction()
            lost.produce(topic, message(f"{part} aborted"), partition=0)
            lost.abort()
            expected.append(f"{part} committed")
        kafka.produce(topic, message("the last"), partition=0)
        expected.append("the last")
        await until(lambda: len(live) == 4, seconds=PATIENCE_SECONDS)

        shown = [frame for frame in live["v1"] if "text" in frame]
        assert [frame["text"] for frame in shown] == expected
        assert live["events"] == live["v1"]
        assert live["bare"] == expected
        assert live["poll"] == await pages(url, limit=1000)
        everything = await pages(url, limit=1000)
        assert [one for one in everything if one in shown] == shown
        assert [one["text"] for one in everything] == expected
        assert await pages(url, limit=3) == everything
        assert await pages(url, limit=4, backward=True) == everything
        assert await frames_of(url, "past-v1", "the last", ("from", "earliest")) == live["v1"]
        assert await frames_of(url, "rewound", "the last", ("rewind", "1000")) == live["v1"]
        assert await events_of(url, "past-events", "the last", begin="earliest") == live["v1"]
        assert await bare_of(url, "past-bare", "the last", "from=earliest") == expected
        for at in dice.sample(range(len(everything) - 1), 6):
            name = everything[at]["meta"]["id"]
            assert await pages(url, cursor=name, limit=1000) == everything[at + 1 :]
            again = await frames_of(url, f"again-{at}", "the last", ("cursor", name))
            assert [one["text"] for one in again if "text" in one] == expected[at + 1 :]
        for until_ms in (1, now, now + 30_000):
            older = [one["text"] for one in everything if (one["meta"]["time"] if one["meta"]["time"] is not None else -1) < until_ms]
            bounded = await pages(
                url, limit=5, until=time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(until_ms // 1000)) + f".{until_ms % 1000:03d}Z"
            )
            assert [one["text"] for one in bounded] == older
