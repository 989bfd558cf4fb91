"""Whatever clients send to the whole service, other clients are not disturbed."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.edges.test_hypercorn_killers import KILLERS
from tests.support.brokers import KafkaCluster
from tests.support.calls import until
from tests.support.chats import Chats, message
from tests.support.clients import Opcode, http, open_chat, open_raw, receive_path
from tests.support.raw_client import handshake_request
from tests.support.serving import Server, serving

EVERY_SECONDS = 0.05
LATE_SECONDS = 1.0  # what a busy machine may cost; a process that a stranger has stopped would be later


@pytest.fixture
async def server(kafka: KafkaCluster, chats: Chats) -> AsyncIterator[Server]:
    kafka.create_topic(chats.topic("global"))
    async with serving(chats.settings_for(kafka)) as server:
        yield server


@asynccontextmanager
async def watched(server: Server, kafka: KafkaCluster, chats: Chats) -> AsyncIterator[None]:
    """Have a client there while the block runs, which gets a message every 50 ms, in time, in order, once."""
    texts: list[str] = []
    done = trio.Event()

    async def say(text: str) -> None:
        texts.append(text)
        await trio.to_thread.run_sync(lambda: kafka.produce(chats.topic("global"), message(text)))

    async def send() -> None:
        while not done.is_set():
            await say(str(len(texts)))
            await trio.sleep(EVERY_SECONDS)
        await say("the last one")

    async def receive() -> None:
        while (await canary.next(seconds=LATE_SECONDS)).text != "the last one":
            pass

    async with open_chat(server.url, "canary") as canary:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
            yield
            done.set()
        await canary.ping()
        assert canary.is_open
        assert [delivery.text for delivery in canary.received] == texts
    answer = await http(server.url, "GET", "/health")
    assert (answer.status, answer.json()) == (200, {"status": "Consumer is running"})
    await until(lambda: not server.service.slots_taken)


async def send_alone(server: Server, data: bytes, *, seconds: float, reset: bool = False) -> None:
    """Say something on a connection of its own, and hear the server out for so long at most."""
    async with open_raw(server.url) as client:
        try:
            await client.send(data)
            if reset:
                client.reset()
            with trio.move_on_after(seconds):
                await client.wait_ended()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it was not heard out, or we left


async def test_requests_that_have_killed_servers(server: Server, kafka: KafkaCluster, chats: Chats) -> None:
    async with watched(server, kafka, chats), trio.open_nursery() as nursery:
        for killer in KILLERS.values():
            nursery.start_soon(lambda killer=killer: send_alone(server, killer, seconds=0.5))


async def test_random_bytes_frames_and_handshakes(server: Server, kafka: KafkaCluster, chats: Chats) -> None:
    dice = random.Random(7)
    handshake = handshake_request(receive_path("ann"), headers={"Sec-WebSocket-Extensions": "permessage-deflate"})
    async with watched(server, kafka, chats):
        for _ in range(60):
            mutated = bytearray(handshake)
            for _ in range(dice.randrange(1, 4)):
                mutated[dice.randrange(len(mutated))] = dice.randrange(256)
            reset = dice.random() < 0.3
            await send_alone(server, bytes(mutated), seconds=0.01, reset=reset)
            await send_alone(server, dice.randbytes(dice.randrange(1, 5000)), seconds=0.01, reset=reset)
            async with open_raw(server.url, receive_path("ann")) as client:
                await client.send(dice.randbytes(dice.randrange(1, 500)))
                if reset:
                    client.reset()


async def test_who_is_slow_or_never_ends(server: Server, kafka: KafkaCluster, chats: Chats) -> None:
    async def drips() -> None:
        async with open_raw(server.url) as client:
            for byte in b"GET /health HTTP/1.1\r\nHost: ":
                await client.send(bytes([byte]))
                await trio.sleep(0.05)

    async def never_ends_its_headers() -> None:
        async with open_raw(server.url) as client:
            await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ")
            with trio.fail_after(3):
                try:
                    while True:
                        await client.send(b"x" * 65536)
                except trio.BrokenResourceError:
                    return  # cut, as is right

    async def sends_more_than_a_frame_may_hold() -> None:
        async with open_raw(server.url, receive_path("ann")) as client:
            await client.send_frame(Opcode.TEXT, b"x" * 200_000)
            await client.wait_ended()

    async def pipelines() -> None:
        async with open_raw(server.url) as client:
            await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 50 + bytes(range(256)) * 20)
            for _ in range(50):
                assert (await client.read_response()).status == 200
            await client.wait_ended()

    async with watched(server, kafka, chats), trio.open_nursery() as nursery:
        for _ in range(10):
            for stranger in (drips, never_ends_its_headers, sends_more_than_a_frame_may_hold, pipelines):
                nursery.start_soon(stranger)
