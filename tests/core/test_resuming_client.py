"""The client of the proofs reads at a known rate, and distinguishes late from lost."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from kafka_chat.chat.resume_cursor import MessageIds
from kafka_chat.delivery.records.formats import text_frame
from tests.support.checker import Journal, Kind, Lane, Ledger, Record, check
from tests.support.raw_client import ACCEPT, RawClient
from tests.support.resuming_client import QUIET_SECONDS, SUBPROTOCOL, ResumingClient

if TYPE_CHECKING:
    from collections.abc import Iterable

LANE = Lane("room1", 0)
IDS = MessageIds("kafka.chat.room1", "an id", 0)
HELLO = {"meta": {"type": "hello", "resume": "none"}}
NAMED = f"Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}"
ACCEPTED = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{NAMED}\r\n\r\n"


class InMemory(ResumingClient):
    """Is connected to the other end of a stream in memory."""

    async def _connected(self, url: str) -> RawClient:
        ours, self.service = memory_stream_pair()
        await self.service.send_all(ACCEPTED.encode())
        ours.socket = SimpleNamespace(close=lambda: None)  # type: ignore[attr-defined]
        return RawClient(cast("trio.SocketStream", ours))  # as far as it is used here


def frames(offsets: Iterable[int]) -> bytes:
    meta = {"partition": 0, "time": None, "key": None, "headers": []}
    shown = [{"id": IDS.of(offset).decode(), "offset": offset, **meta} for offset in offsets]
    said = [{"sender": "a", "text": f"{about['offset']} {'x' * 60}", "tag": None, "chat": "room1", "meta": about} for about in shown]
    return b"".join(text_frame(json.dumps(one).encode()) for one in said)


async def connected(*, pace: float | None = None) -> tuple[InMemory, trio.abc.SendStream]:
    client = InMemory(Journal("bob"), "bob", identities=False, pace=pace)
    client.journal.owe(LANE, 0)
    await client.come("http://anywhere")
    await client.service.send_all(text_frame(json.dumps(HELLO).encode()))
    return client, client.service


def ledger_of(count: int) -> Ledger:
    ledger = Ledger()
    for offset in range(count):
        ledger.produced(LANE, offset, Record(offset))
    return ledger


def has(client: ResumingClient, count: int) -> bool:
    return len(client.journal.recorded[LANE].offsets) == count


async def test_who_is_slow_on_purpose_takes_so_many_a_second_whatever_waits(autojump_clock) -> None:
    client, service = await connected(pace=10.0)
    await service.send_all(frames(range(500)))
    began = trio.current_time()
    await client.read_until(lambda: has(client, 500))
    assert abs(trio.current_time() - began - 50) < 1
    client.pace = None
    await service.send_all(frames(range(500, 1000)))
    await client.read_until(lambda: has(client, 1000))
    assert trio.current_time() - began < 52


async def test_who_gets_the_rest_waits_for_as_long_as_messages_come(autojump_clock) -> None:
    client, service = await connected()

    async def serve() -> None:
        for offset in range(20):
            await trio.sleep(QUIET_SECONDS - 1)
            await service.send_all(frames([offset]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        assert await client.read_rest(lambda: has(client, 20))
    assert check(ledger_of(20), [client.journal]) == []


async def test_what_does_not_come_in_a_long_silence_is_lost(autojump_clock) -> None:
    client, service = await connected()
    await service.send_all(frames(range(5)))
    assert not await client.read_rest(lambda: has(client, 6))
    assert client.connected
    assert [(fault.kind, fault.offsets) for fault in check(ledger_of(6), [client.journal])] == [(Kind.LOST, (5,))]


async def test_what_has_not_come_when_its_client_is_stopped_is_late(autojump_clock) -> None:
    client, service = await connected()
    await service.send_all(frames(range(5)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.read_rest, lambda: has(client, 6))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [(fault.kind, fault.offsets) for fault in check(ledger_of(6), [client.journal])] == [(Kind.LATE, (5,))]


async def test_a_connection_that_ends_is_told_from_silence(autojump_clock) -> None:
    client, _ = await connected()
    await client.service.aclose()
    assert not await client.read_rest(lambda: has(client, 1))
    assert not client.connected
    assert not client.journal.stopped_early
