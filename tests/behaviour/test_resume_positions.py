"""Wherever a client's position is in the log, it gets what follows, and exact notices of what no longer exists."""

from __future__ import annotations

import base64
from hashlib import sha256
from zlib import crc32

import pytest
import trio

from tests.support.brokers import KafkaCluster
from tests.support.calls import running
from tests.support.chats import Chats, message
from tests.support.deadlines import HANG_SECONDS
from tests.support.noted import Noted, gaps, noted, until_live
from tests.support.raw_client import BrokenStream
from tests.support.resuming_client import ResumingClient
from tests.support.resuming_visit import Cut

KEYS = 7


def id_of(chat: Noted, offset: int, *, partition: int = 0, wire: bytes | None = None, epoch: int = 0) -> str:
    """Return the id of a message, put together as the protocol has it."""
    identity = base64.urlsafe_b64decode(chat.room.identity + "==")
    place = bytes((partition,)) + (varint(offset) if wire is None else wire) + varint(epoch + 1)
    part = b"\x04" + sha256(chat.topic.encode()).digest()[:4] + identity + place
    return base64.urlsafe_b64encode(part + (crc32(part) & 0xFFFF).to_bytes(2, "big")).rstrip(b"=").decode()


def varint(number: int) -> bytes:
    pieces = []
    while number >= 0x80:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*pieces, number])


async def came_back(chat: Noted, url: str, cursor: str) -> ResumingClient:
    client = chat.client(owed=False)
    await client.come(url, cursor=cursor)
    await until_live(client)
    return client


@pytest.mark.promise("p-message-id")
async def test_an_id_of_a_message_is_where_the_protocol_says(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats) as chat:
        client = chat.client()
        client.keep = True
        await client.come(server.url)
        await chat.produce(300)
        await chat.get_all(client)
        assert [frame.meta.id for frame in client.frames] == [id_of(chat, offset) for offset in range(300)]


@pytest.mark.promise("p-gap", "p-resume-gap")
async def test_an_offset_that_is_gone_is_told_with_what_is_left(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats) as chat:
        await chat.produce(20)
        await chat.trim(15)
        client = await came_back(chat, server.url, id_of(chat, 9))
        client.journal.owe(chat.lanes[0], 10)
        assert (client.visit.resume, gaps(client)) == ("gap", [("room", 0, 10, 15, "retention")])


async def test_all_that_was_left_is_gone_too(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats) as chat:
        await chat.produce(20)
        await chat.trim(20)
        client = await came_back(chat, server.url, id_of(chat, 9))
        client.journal.owe(chat.lanes[0], 10)
        assert (client.visit.resume, gaps(client)) == ("gap", [("room", 0, 10, 20, "retention")])
        await chat.produce(1)
        await chat.get_all(client)


@pytest.mark.parametrize("last", [14, 15, 18, 19], ids=["before_the_first_left", "first_left", "before_the_last", "last"])
@pytest.mark.promise("p-resume-gap")
async def test_an_offset_at_the_edge_is_no_gap(kafka: KafkaCluster, chats: Chats, last: int):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats) as chat:
        await chat.produce(20)
        await chat.trim(15)
        client = await came_back(chat, server.url, id_of(chat, last))
        client.journal.owe(chat.lanes[0], last + 1)
        assert (client.visit.resume, gaps(client)) == ("exact", [])
        await chat.produce(1)
        await chat.get_all(client)


@pytest.mark.promise("p-future")
async def test_an_offset_beyond_the_end_is_told_after_some_seconds(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats) as chat:
        await chat.produce(20)
        client = await came_back(chat, server.url, id_of(chat, 1000))
        client.journal.owe(chat.lanes[0], 20)
        assert (client.visit.resume, gaps(client)) == ("future", [("room", 0, 1001, 20, "truncated")])
        assert client.visit.said_hello is not None
        assert client.visit.said_hello - client.visit.accepted > 4
        await chat.produce(3)
        await chat.get_all(client)


async def test_an_offset_beyond_the_end_that_comes_true_meanwhile_is_no_gap(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats) as chat:
        await chat.produce(20)
        client = chat.client(owed=False)
        client.journal.owe(chat.lanes[0], 23)
        await client.come(server.url, cursor=id_of(chat, 22))
        await chat.produce(5)
        await until_live(client)
        assert (client.visit.resume, gaps(client)) == ("exact", [])
        await chat.get_all(client)


@pytest.mark.parametrize(
    "wire",
    [varint(2**64 - 1), varint(2**63), b"\xff" * 10 + b"\x01", b"\x80", b""],
    ids=["minus_one", "2**63", "too_long", "cut_off", "missing"],
)
async def test_a_negative_or_broken_offset_is_refused(kafka: KafkaCluster, chats: Chats, wire: bytes):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats) as chat:
        await refused_with_4400(chat, server.url, id_of(chat, 0, wire=wire))


@pytest.mark.parametrize("cursor", ["", "text", "12", "-1", "0:12", "AA", "AAAA", "....", "Aw", "%00", "€", "AQ==", "A" * 5000])
@pytest.mark.promise("p-malformed-cursor")
async def test_text_that_is_no_cursor_is_refused(kafka: KafkaCluster, chats: Chats, cursor: str):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats) as chat:
        await refused_with_4400(chat, server.url, cursor)


async def refused_with_4400(chat: Noted, url: str, cursor: str) -> None:
    client = chat.client(owed=False)
    await client.come(url, cursor=cursor)
    with trio.fail_after(HANG_SECONDS):
        try:
            await client.read()
        except BrokenStream as error:
            raise AssertionError(f"something else came first: {error}") from error
    assert client.visit.close_code == 4400, client.visit
    assert "cursor" in client.visit.close_reason
    assert client.visit.hello is None


async def test_an_offset_of_a_partition_that_is_not_there_leaves_the_others_as_without_it(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats, partitions=2) as chat:
        for partition in range(2):
            await chat.produce(10, partition=partition)
        client = await came_back(chat, server.url, id_of(chat, 3, partition=7))
        for lane in chat.lanes:
            client.journal.owe(lane, 10)
        assert gaps(client) == []
        for partition in range(2):
            await chat.produce(2, partition=partition)
        await chat.get_all(client)


@pytest.mark.promise("p-position")
async def test_an_id_of_one_partition_leaves_the_others_at_the_latest(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka)) as server, noted(kafka, chats, partitions=2) as chat:
        for partition in range(2):
            await chat.produce(10, partition=partition)
        client = await came_back(chat, server.url, id_of(chat, 3, partition=1))
        client.journal.owe(chat.lanes[0], 10)
        client.journal.owe(chat.lanes[1], 4)
        for partition in range(2):
            await chat.produce(2, partition=partition)
        await chat.get_all(client)


@pytest.mark.promise("p-exact")
async def test_a_client_resumes_exactly_at_each_offset_of_a_log_with_markers(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka, memory__bytes=65_536)) as server, noted(kafka, chats) as chat:
        for turn in range(4):
            await chat.produce(2)
            await chat.in_transaction(2, commit=turn % 2 == 0)
        end = chat.kafka.offsets(chat.topic).last_stable
        assert end == 4 * 5, "a marker behind each transaction"
        clients = []
        for last in range(end):
            client = chat.client(f"user{last}", owed=False)
            client.journal.owe(chat.lanes[0], last + 1)
            await client.come(server.url, cursor=id_of(chat, last))
            await until_live(client)
            assert (client.visit.resume, gaps(client)) == ("exact", [])
            clients.append(client)
        await chat.produce(1)
        await chat.get_all(*clients)


@pytest.mark.deadline(90)
async def test_a_client_resumes_exactly_in_the_holes_of_compaction(kafka: KafkaCluster, chats: Chats):
    async with (
        running(chats.settings_for(kafka, memory__bytes=65_536)) as server,
        noted(kafka, chats, cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio="0.01") as chat,
    ):
        last = await compacted(chat)
        left = [record.offset for record in kafka.records(chat.topic)]
        holes = sorted({*range(1, last)} - {*left})
        assert min(left) < holes[-1], "nothing was compacted away between two that were kept"
        for at in (holes[0], holes[len(holes) // 2], holes[-1]):
            client = chat.client(f"user{at}", owed=False)
            client.journal.owe(chat.lanes[0], at)
            await client.come(server.url, cursor=id_of(chat, at - 1))
            await until_live(client)
            assert gaps(client) == []
            assert set(client.journal.recorded[chat.lanes[0]].offsets) >= {*range(last - KEYS + 1, last + 1)}, (
                "the last of some key is missing"
            )


async def compacted(chat: Noted) -> int:
    """Write over the same keys until the log has holes, and return the last offset."""
    offset = 0

    def write() -> int:
        number = chat.number()
        key = f"kept {number}" if number % 10 == 5 else str(number % KEYS)
        at = chat.kafka.produce(chat.topic, message(f"{number} "), key=key).offset
        chat.note(number, at)
        if key in map(str, range(KEYS)):
            chat.ledger.compacted[chat.lanes[0]].add(at)
        return at

    with trio.fail_after(HANG_SECONDS):
        while offset < 40 or len(await trio.to_thread.run_sync(chat.kafka.records, chat.topic)) > offset * 0.7:
            offset = await trio.to_thread.run_sync(write)
    return offset


@pytest.mark.deadline(90)
async def test_one_lagging_partition_of_four_starves_none_of_the_others(kafka: KafkaCluster, chats: Chats):
    async with running(chats.settings_for(kafka, memory__bytes=1 << 20)) as server, noted(kafka, chats, partitions=4) as chat:
        client = chat.client()
        await client.come(server.url)
        await until_live(client)
        for partition in range(4):
            await chat.produce(10, partition=partition)
        await chat.get_all(client)
        await client.cut(Cut.RESET)
        lagging = await chat.produce(20_000, partition=2, padding="x" * 500)
        others = [lane for lane in chat.lanes if lane.partition != 2]
        for partition in (0, 1, 3):
            await chat.produce(10, partition=partition)
        await client.come(server.url)
        await client.read_until(lambda: all(client.journal.recorded[lane].offsets[-1] == 19 for lane in others))
        had = client.journal.recorded[chat.lanes[2]].offsets[-1]
        assert had < lagging[-1], "the others came only after all of the one that lags"
        await chat.get_all(client)
