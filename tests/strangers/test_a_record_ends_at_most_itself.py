"""A bad record affects only itself: whatever bytes a producer puts into it, all clients go on and get the records around it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from kafka_chat.chat.message import LeftOut, Reject
from kafka_chat.settings.model import Settings
from tests.support.brokers import KafkaCluster
from tests.support.calls import metrics, running
from tests.support.chats import Chats, message
from tests.support.clients import open_chat
from tests.support.events_client import Event, open_events
from tests.support.http_client import http
from tests.support.raw_produce import NO_TIME, RawRecord, Refused, produce_raw
from tests.support.serving import spawned, until_ready
from tests.support.v1_client import Frame, V1Client, open_v1

PATIENCE_SECONDS = 30.0
LIMIT = 1_000_000  # the default of `limits.message_bytes`
NO_UTF8 = (b"\xdf", b"x")  # a header as Go's and Java's clients send it for text in Latin-1
HEADERS = ((b"before", b"1"), NO_UTF8, (b"after", None), (b"\xff\xfe", b"\xff"), (b"a\0b", b""))
SHOWN = [["before", "1"], ["\ufffd", "x"], ["after", None], ["\ufffd", {"base64": "/w=="}], ["a", ""]]


async def page(url: str, **query: object) -> list[Frame]:
    answer = await http(url, "GET", f"/history/global?{urlencode(query)}", seconds=PATIENCE_SECONDS)
    assert answer.status == 200, answer
    body: dict[str, Any] = answer.json()  # type: ignore[assignment]  # as docs/protocol.md has it
    return body["messages"]


async def frames_until(client: V1Client, text: str) -> list[Frame]:
    """Return all frames up to the message with this text."""
    found: list[Frame] = []
    with trio.fail_after(PATIENCE_SECONDS):
        while not found or found[-1].get("text") != text:
            found.append(await client.next(seconds=PATIENCE_SECONDS))
    return found


@pytest.mark.promise("p-header-names")
async def test_a_header_whose_name_is_not_utf8_is_shown_live_to_who_resumes_on_a_page_and_after_a_restart(
    kafka: KafkaCluster, chats: Chats
) -> None:
    topic = chats.topic("global")
    kafka.create_topic(topic)
    settings = chats.settings_for(kafka)
    async with spawned(settings=settings) as server:
        await until_ready(server)
        async with open_chat(server.url, "neighbour") as neighbour, open_v1(server.url, "ann") as client:
            await client.control("live")
            cursor = client.cursor
            produce_raw(kafka.bootstrap, topic, [RawRecord(value=message("odd"), key=b"k", headers=HEADERS, time_ms=5)])
            kafka.produce(topic, message("next"))
            odd, _ = await frames_until(client, "next")
            assert await neighbour.texts(2, seconds=PATIENCE_SECONDS) == ["odd", "next"]
        counted = await metrics(server.url)
        assert server.returncode is None
        assert counted['kafka_chat_records_shortened_total{what="header_name"}'] == 1
        assert await server.wait_for(rf"record\.shortened what=header_name topic={topic} partition=0 offset=0")
    assert (odd["text"], odd["meta"]["headers"], odd["meta"]["key"], odd["meta"]["time"]) == ("odd", SHOWN, "k", 5)
    assert "left_out" not in odd["meta"]
    async with spawned(settings=settings) as server:
        await until_ready(server)
        async with open_v1(server.url, "ann", cursor=cursor) as back:
            assert (await frames_until(back, "next"))[-2:-1] == [odd]
        assert (await page(server.url))[0] == odd
        assert (await page(server.url, direction="backward"))[0] == odd


async def sizes(
    kafka: KafkaCluster, settings: Settings, topic: str, records: Sequence[RawRecord]
) -> tuple[list[Frame], list[Event], list[str]]:
    """Produce records, then one that says "canary"; return what clients of v1, of events and bare ones get, all within the limit."""
    async with (
        running(settings) as server,
        open_v1(server.url, "ann") as client,
        open_events(server.url, "eve") as stream,
        open_chat(server.url, "bob") as bare,
    ):
        await client.control("live", seconds=PATIENCE_SECONDS)
        while (await stream.next(seconds=PATIENCE_SECONDS)).name != "live":
            pass
        produce_raw(kafka.bootstrap, topic, records)
        kafka.produce(topic, message("canary"))
        frames = await frames_until(client, "canary")
        events = await stream.take(len(frames), seconds=PATIENCE_SECONDS)
        texts = [one.text for one in await bare.take_until("canary", seconds=PATIENCE_SECONDS)]
        assert [json.loads(event.data) for event in events] == frames
        assert {json.dumps(one) for one in await page(server.url)} >= {json.dumps(one) for one in frames if "text" in one}
    assert max(len(event.data.encode()) for event in events) <= settings.limits.message_bytes
    return frames, events, texts


@pytest.mark.promise("p-left-out", "p-event-size")
async def test_a_key_that_makes_a_frame_larger_than_the_limit_is_left_out(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("global")
    kafka.create_topic(topic)
    record = RawRecord(value=message("v"), key=b"\x01" * 175_000, headers=[(b"h", b"1")])
    frames, _, texts = await sizes(kafka, chats.settings_for(kafka), topic, [record])
    meta = frames[0]["meta"]
    assert (meta["key"], meta["headers"], meta["left_out"]) == (None, [["h", "1"]], ["key"])
    assert texts == ["v", "canary"]


@pytest.mark.promise("p-left-out", "p-too-large-with-meta", "p-skipped")
async def test_a_message_that_fits_bare_and_not_with_its_meta_is_told_in_its_place_and_whole_on_a_page(
    kafka: KafkaCluster, chats: Chats
) -> None:
    topic = chats.topic("global")
    kafka.create_topic(topic)
    settings = chats.settings_for(kafka, limits__message_bytes=10_000)
    overhead = len(json.dumps({"sender": "a", "text": "", "tag": None, "chat": "global"}, separators=(",", ":")))
    records = [
        RawRecord(value=message("x" * (10_000 - overhead), sender="a"), key=b"k", time_ms=7),
        RawRecord(value=message("y" * (9_000 - overhead), sender="a"), key=b"k" * 2_000, headers=[(b"h", b"v" * 2_000)], time_ms=8),
        RawRecord(value=message("z" * (8_000 - overhead), sender="a"), key=b"k" * 1_000, headers=[(b"h", b"v" * 2_000)], time_ms=9),
    ]
    frames, events, texts = await sizes(kafka, settings, topic, records)
    skipped, both, headers, _ = frames
    about = {"chat": "global", "id": events[0].last_id.rpartition(".")[2], "partition": 0, "offset": 0, "time": 7, "cause": "too_large"}
    assert skipped == {"meta": {"type": "skipped", **about}}
    assert events[0].name == "skipped"
    assert events[0].last_id.rpartition(".")[2] != events[1].last_id.rpartition(".")[2]
    assert (both["meta"]["key"], both["meta"]["headers"], both["meta"]["left_out"]) == (None, [], ["headers", "key"])
    assert (headers["meta"]["key"], headers["meta"]["headers"], headers["meta"]["left_out"]) == ("k" * 1_000, [], ["headers"])
    assert [text[0] for text in texts] == ["x", "y", "z", "c"]


def odd_bytes(dice: random.Random, *, most: int) -> bytes:
    """Bytes of any kind: text, no text, what JSON has to escape, nothing."""
    size = dice.choice([0, 1, 2, 30, dice.randrange(most)])
    kind = dice.randrange(5)
    if kind == 0:
        return dice.randbytes(size)
    return {1: b"\x01", 2: "ü".encode(), 3: b"a", 4: b'"\\'}[kind] * (size // 2 + 1)


def odd_record(dice: random.Random, number: int) -> RawRecord:
    """A record with anything in any of its fields; about half of them are chat messages."""
    good = json.dumps({"sender": f"s{number % 3}", "text": f"{number}", "tag": None, "more": "x" * dice.randrange(200)}).encode()
    bad: list[bytes | None] = [None, b"", odd_bytes(dice, most=2_000), b"[" * 5_000, good[:-1] + b"\xff}", b'{"sender":1}', b'"\\ud800"']
    count = dice.choice([0, 0, 1, 3, 40])
    headers = [(odd_bytes(dice, most=300), None if dice.random() < 0.2 else odd_bytes(dice, most=300)) for _ in range(count)]
    if dice.random() < 0.05:
        headers = headers[:2] * dice.choice([1_000, 3_000])
    return RawRecord(
        value=good if dice.random() < 0.5 else dice.choice(bad),
        key=None if dice.random() < 0.3 else odd_bytes(dice, most=dice.choice([10, 1_000, 70_000])),
        headers=headers,
        time_ms=dice.choice([0, 1, 1_764_000_000_000, NO_TIME, -2, -(10**15), 10**12]),
    )


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_bytes_are_in_records_the_messages_among_them_come_live_and_again_and_the_rest_is_counted(
    kafka: KafkaCluster, chats: Chats, seed: int
) -> None:
    dice = random.Random(seed)
    topic, subscriptions = chats.topic("global"), chats.subscriptions_topic
    kafka.create_topic(topic)
    kafka.create_topic(subscriptions, cleanup_policy="compact")
    settings = chats.settings_for(kafka, memory__bytes=1 << 20)
    written: list[RawRecord] = []
    async with running(settings) as server, open_v1(server.url, "ann") as client, open_chat(server.url, "bob") as bare:
        await client.control("live", seconds=PATIENCE_SECONDS)
        cursor = client.cursor
        for first in range(0, 240, 40):
            batch = [odd_record(dice, number) for number in range(first, first + 40)]
            try:
                produce_raw(kafka.bootstrap, topic, batch)
                written += batch
            except Refused:
                continue  # of which Kafka takes nothing
            produce_raw(kafka.bootstrap, subscriptions, [record for record in batch if record.key is not None])
        kafka.produce(topic, message("canary"))
        frames = await frames_until(client, "canary")
        texts = [one.text for one in await bare.take_until("canary", seconds=PATIENCE_SECONDS)]
        counted = await metrics(server.url)
        async with open_v1(server.url, "ann", cursor=cursor) as back:
            again = await frames_until(back, "canary")
        pages = await page(server.url, limit=1000)
    numbers = [str(json.loads(record.value)["text"]) for record in written if is_message(record)]
    assert len(numbers) > 50
    shown = [frame for frame in frames if "text" in frame]
    assert [frame["text"] for frame in shown] == texts == [*numbers, "canary"]
    assert [frame for frame in again if "text" in frame] == shown
    assert [frame["text"] for frame in pages] == texts[: len(pages)]
    rejected = sum(counted[f'kafka_chat_records_rejected_total{{reason="{reason}"}}'] for reason in Reject)
    assert rejected == len(written) - len(numbers)
    assert counted[f'kafka_chat_records_shortened_total{{what="{LeftOut.HEADER_NAME}"}}'] > 0


def is_message(record: RawRecord) -> bool:
    """Whether a record's value is one of the good ones."""
    return record.value is not None and record.value.startswith(b'{"sender": "s') and b"\xff" not in record.value


@pytest.mark.promise("p-record-rejected", "p-in-order-once")
async def test_offsets_that_a_producer_wrote_out_of_order_are_skipped_and_no_page_fails(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("global")
    kafka.create_topic(topic)
    odd = [
        [RawRecord(value=message("far ahead"), offset_delta=5)],
        [RawRecord(value=message("one"), offset_delta=1), RawRecord(value=message("the same"), offset_delta=1)],
        [RawRecord(value=message("later"), offset_delta=1), RawRecord(value=message("earlier"), offset_delta=0)],
        [RawRecord(value=message("before"), offset_delta=-1)],
    ]
    async with running(chats.settings_for(kafka)) as server, open_v1(server.url, "live") as live:
        await live.control("live")
        for batch in odd:
            produce_raw(kafka.bootstrap, topic, [RawRecord(value=message("plain"))])
            produce_raw(kafka.bootstrap, topic, batch)
        produce_raw(kafka.bootstrap, topic, [RawRecord(value=message(f"plain {number}")) for number in range(8)])
        produce_raw(kafka.bootstrap, topic, [RawRecord(value=message("end"))])
        seen = await frames_until(live, "end")
        async with open_v1(server.url, "past", ("from", "earliest")) as past:
            again = [frame for frame in await frames_until(past, "end") if "text" in frame]
        pages = [await page(server.url, limit=1000, direction=direction) for direction in ("forward", "backward")]
        counted = await metrics(server.url)
    for frames in (seen, again, *pages):
        offsets = [frame["meta"]["offset"] for frame in frames]
        assert offsets == sorted(set(offsets))
        assert frames[-1]["text"] == "end"
    assert pages[0] == pages[1]
    assert counted['kafka_chat_records_rejected_total{reason="out_of_order"}'] > 0
    assert counted.get("kafka_chat_requests_failed_total", 0) == 0
