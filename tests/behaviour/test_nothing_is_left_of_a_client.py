"""However a client leaves, its session ends, and nothing of it is left."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support.brokers import EmbeddedBroker, KafkaCluster
from tests.support.calls import meanwhile, metric, running, subscribe, until
from tests.support.chats import Chats, message
from tests.support.clients import Opcode, RawClient, client_frame, handshake_request, open_chat, open_raw, receive_path
from tests.support.leaks import nothing_left, tasks
from tests.support.serving import Server

END_SECONDS = 3.0  # a session's end, on a busy machine
ROOMS = 5
CLOSE = client_frame(Opcode.CLOSE, (1000).to_bytes(2, "big"))


async def close_frame(client: RawClient) -> None:
    await client.send(CLOSE)


async def close_frame_and_read(client: RawClient) -> None:
    await client.send(CLOSE)
    await client.read_to_end()


async def fin(client: RawClient) -> None:
    await client.half_close()


async def close(client: RawClient) -> None:
    await client.close()


async def rst(client: RawClient) -> None:
    client.reset()


async def half_a_frame(client: RawClient) -> None:
    await client.send(client_frame(Opcode.TEXT, b"never said to its end")[:7])
    await client.close()


async def broken_frame(client: RawClient) -> None:
    await client.send_frame(Opcode.TEXT, b"x", reserved=7)


WAYS = [close_frame, close_frame_and_read, fin, close, rst, half_a_frame, broken_frame]


@pytest.mark.parametrize("leave", WAYS)
async def test_the_session_ends_at_once_with_the_connection(
    embedded: EmbeddedBroker, chats: Chats, leave: Callable[[RawClient], object]
) -> None:
    embedded.create_topic(chats.topic("room1"))
    async with running(chats.settings_for(embedded)) as server, open_chat(server.url, "bob") as other:
        await subscribe(server.url, "alice", "room1")
        before = Counter(tasks())
        followed = await metric(server.url, "followed_partitions")
        async with open_raw(server.url, receive_path("alice")) as client:
            embedded.produce(chats.topic("room1"), message("hello"))
            await client.next_text()
            assert await metric(server.url, "followed_partitions") > followed
            await leave(client)
            await until(lambda: server.service.slots_taken == 1, seconds=END_SECONDS)
            assert await metric(server.url, "sessions") == 1
            assert await metric(server.url, "followed_partitions") == followed
        await until(lambda: not Counter(tasks()) - before, seconds=END_SECONDS)
        assert other.is_open


async def test_a_peer_that_is_silent_is_cut_off_after_the_time_for_its_pong(embedded: EmbeddedBroker, chats: Chats) -> None:
    settings = chats.settings_for(embedded, limits__ping_seconds=0.5, limits__pong_seconds=0.5)
    async with running(settings) as server, open_chat(server.url, "bob") as lively, open_raw(server.url, receive_path("alice")) as frozen:
        assert await frozen.next_frame() is not None  # the ping, which it leaves unanswered
        began = trio.current_time()
        await until(lambda: server.service.slots_taken == 1)
        assert trio.current_time() - began < 2
        assert await metric(server.url, 'connections_aborted_total{reason="pong_seconds"}') == 1
        async with open_raw(server.url, receive_path("carol")) as another:  # so that it was here for longer than a client may be silent
            await another.wait_ended()
        assert lively.is_open


@pytest.mark.deadline(240)
async def test_a_thousand_clients_come_and_go_in_any_way_and_nothing_is_left(kafka: KafkaCluster, chats: Chats) -> None:
    topics = [chats.topic(chat) for chat in ("global", *(f"room{n}" for n in range(ROOMS)))]
    for topic in topics:
        kafka.create_topic(topic, 2)
    settings = chats.settings_for(kafka, limits__ping_seconds=1.0, limits__pong_seconds=5.0, limits__write_seconds=2.0)
    async with running(settings) as server, open_chat(server.url, "witness") as witness:
        for user in range(ROOMS):
            await subscribe(server.url, f"user{user}", f"room{user}", f"room{(user + 1) % ROOMS}")

        async def come_and_go(visits: int, dice: random.Random) -> None:
            for _ in range(visits):
                await visit(server, dice)

        async def noise() -> None:
            await trio.to_thread.run_sync(partial(kafka.produce_many, random.choice(topics), [message("x" * 500)] * 5))
            await trio.sleep(0.02)

        await come_and_go(10, random.Random(1))  # whatever is made once and kept is there now
        await until(lambda: server.service.slots_taken == 1)
        followed = await metric(server.url, "followed_partitions")
        before = Counter(tasks())
        async with nothing_left(brokers=settings.kafka.bootstrap_servers):
            async with meanwhile(noise), trio.open_nursery() as nursery:
                for seed in range(20):
                    nursery.start_soon(come_and_go, 50, random.Random(seed))
            await until(lambda: server.service.slots_taken == 1)
            assert await metric(server.url, "followed_partitions") == followed
            await until(lambda: not Counter(tasks()) - before)
        assert await metric(server.url, "sessions") == 1
        assert await metric(server.url, "sessions_failed_total") == 0
        assert await metric(server.url, "owed_bytes") == 0
        kafka.produce(topics[0], message("the last one"))
        await witness.take_until("the last one")


async def visit(server: Server, dice: random.Random) -> None:
    """Come, stay a while, and go, at any point of the way."""
    path = receive_path(f"user{dice.randrange(ROOMS)}")
    async with open_raw(server.url, receive_buffer=dice.choice([None, 4096])) as client:
        stage = dice.random()
        if stage < 0.1:
            request = handshake_request(path)
            await client.send(request[: dice.randrange(len(request))])
        elif stage < 0.2:
            await client.send(handshake_request(path))  # and gone before the answer
        else:
            await client.handshake(path)
            if dice.random() < 0.3:
                await client.send(client_frame(Opcode.TEXT, b"chatter") * dice.randrange(1, 40))
            await trio.sleep(dice.random() * 0.1)
            await dice.choice(WAYS)(client)
            return
        await dice.choice([fin, close, rst])(client)


async def test_threads_do_not_grow_with_sessions(kafka: KafkaCluster, chats: Chats) -> None:
    for number in range(10):
        kafka.create_topic(chats.topic(f"room{number}"))

    def threads() -> int:
        return sum(1 for _ in Path("/proc/self/task").iterdir())

    async with running(chats.settings_for(kafka)) as server, trio.open_nursery() as nursery:
        for number in range(10):
            await subscribe(server.url, f"user{number}", f"room{number}")

        async def stay(number: int, *, task_status: trio.TaskStatus[None]) -> None:
            async with open_raw(server.url, receive_path(f"user{number % 10}")):
                task_status.started()
                await trio.sleep_forever()

        await nursery.start(stay, 0)
        with_one = threads()
        for number in range(1, 200):
            await nursery.start(stay, number)
        assert await metric(server.url, "sessions") == 200
        assert threads() <= with_one + 2  # trio keeps idle threads for the next calls
        nursery.cancel_scope.cancel()
