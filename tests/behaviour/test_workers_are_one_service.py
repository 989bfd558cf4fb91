"""Several workers on one port are one service: a client sees the same on each of them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain

import pytest
import trio

from tests.support.brokers import KafkaCluster
from tests.support.calls import following, metrics, subscribe
from tests.support.chats import Chats, message
from tests.support.clients import http, open_raw, receive_path
from tests.support.deadlines import HANG_SECONDS
from tests.support.serving import ChildServer, spawned
from tests.support.workers import serving_pids, sockets_on_each

REQUESTS = 12  # all of them reach the same of two workers once in 2,000 times


@asynccontextmanager
async def two_workers(kafka: KafkaCluster, chats: Chats) -> AsyncIterator[ChildServer]:
    async with spawned(settings=chats.settings_for(kafka, server__workers=2)) as server:
        with trio.fail_after(HANG_SECONDS):
            for _ in range(REQUESTS):
                while (await http(server.url, "GET", "/ready")).status != 200:  # noqa: ASYNC110 - it is asked
                    await trio.sleep(0.05)
        yield server


@pytest.mark.parametrize("at_once", [False, True], ids=["one_after_the_other", "all_at_once"])
async def test_sockets_spread_over_the_workers(kafka: KafkaCluster, chats: Chats, *, at_once: bool) -> None:
    kafka.create_topic(chats.topic("global"))
    async with two_workers(kafka, chats) as server, AsyncExitStack() as stack:

        async def connect(number: int) -> None:
            await stack.enter_async_context(open_raw(server.url, receive_path(f"user{number}")))

        if at_once:
            async with trio.open_nursery() as nursery:
                for number in range(400):
                    nursery.start_soon(connect, number)
        else:
            for number in range(400):
                await connect(number)
        found = await metrics(server.url)
        sockets = [found[f'kafka_chat_sockets{{worker="{worker}"}}'] for worker in (0, 1)]
        assert sum(sockets) == 400
        assert 0.35 * 400 <= sockets[0] <= 0.65 * 400, sockets


async def test_a_subscription_through_any_worker_holds_on_all(kafka: KafkaCluster, chats: Chats) -> None:
    for chat in ("global", *(f"room{n}" for n in range(REQUESTS))):
        kafka.create_topic(chats.topic(chat))
    async with two_workers(kafka, chats) as server, AsyncExitStack() as stack:
        anns = [await stack.enter_async_context(open_raw(server.url, receive_path("ann"))) for _ in range(REQUESTS)]
        for n in range(REQUESTS):
            await subscribe(server.url, "ann", f"room{n}")
            # Acknowledged after the answer, so it comes on every socket, whichever worker answered.
            kafka.produce(chats.topic(f"room{n}"), message(f"first in {n}"))
            for ann in anns:
                assert json.loads(await ann.next_text())["text"] == f"first in {n}"
        for _ in range(REQUESTS):
            assert len(await following(server.url, "ann")) == 1 + REQUESTS


async def test_what_is_sent_through_any_worker_comes_to_all_on_the_embedded_broker_too() -> None:
    async with spawned("--workers", "2", "--embedded") as server, sockets_on_each(server) as clients:
        for n in range(REQUESTS):
            sent = await http(server.url, "POST", "/send-message/chat/global", json_body={"sender": "bob", "text": f"hello {n}"})
            assert sent.status == 200, sent
        for client in chain(*clients.values()):
            texts = sorted([json.loads(await client.next_text())["text"] for _ in range(REQUESTS)])
            assert texts == sorted(f"hello {n}" for n in range(REQUESTS))


@pytest.mark.promise("p-metrics", "p-metrics-of-workers")
async def test_probes_and_metrics_are_the_same_through_any_worker(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    async with two_workers(kafka, chats) as server, sockets_on_each(server) as clients:
        for _ in range(REQUESTS):
            assert (await http(server.url, "GET", "/health")).json() == {"status": "Consumer is running"}
            found = await metrics(server.url)
            assert sum(found[f'kafka_chat_sessions{{worker="{worker}"}}'] for worker in (0, 1)) == sum(map(len, clients.values()))
            assert found['kafka_chat_workers_serving{worker="supervisor"}'] == 2
            assert 'kafka_chat_sessions{worker="2"}' not in found


async def test_it_says_once_where_it_listens_and_each_log_line_says_whose_it_is(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    async with two_workers(kafka, chats) as server, sockets_on_each(server, 1):
        assert server.stdout == f"listening on {server.url} with the brokers {kafka.bootstrap}\n"
        lines = server.stderr.splitlines()
        whose = re.compile(r"\S+Z [A-Z]+ (supervisor|worker-[01])\[(\d+)\] kafka_chat")
        assert [line for line in lines if not whose.match(line)] == []
        pids = {who: int(pid) for who, pid in whose.findall("\n".join(lines))}
        assert pids == {"supervisor": server.pid, **{f"worker-{number}": pid for number, pid in serving_pids(server).items()}}
