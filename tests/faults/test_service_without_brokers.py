"""The whole service while brokers are away, hang, or die one by one: no client is disconnected, no message is lost or comes twice."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.support.brokers import KafkaCluster
from tests.support.calls import until
from tests.support.chats import Chats, message
from tests.support.clients import ChatClient, handshake_request, http, open_chat, open_raw, receive_path
from tests.support.serving import ChildServer, Server, serving, spawned

pytestmark = pytest.mark.deadline(120)

ANSWERED_SECONDS = 5.5
ACCEPTED_SECONDS = 2.0
ENDED_SECONDS = 1.0
BUSY_SECONDS = 1.0  # what a shared machine may add to each of them


async def ready(server: Server | ChildServer) -> bool:
    return (await http(server.url, "GET", "/ready")).status == 200


async def unready(server: Server | ChildServer) -> bool:
    return not await ready(server)


async def subscribed(server: Server | ChildServer, user: str, chat: str) -> bool:
    return (await http(server.url, "POST", f"/subscribing/{user}?topic={chat}")).status == 200


async def chats_of(server: Server | ChildServer, user: str) -> list[str]:
    answer = (await http(server.url, "GET", f"/subscribing/{user}")).json()
    return [chat["chat"] for chat in answer["chats"]]


async def assert_refused(server: Server | ChildServer, method: str, target: str, body: object = None) -> None:
    began = trio.current_time()
    answer = await http(server.url, method, target, json_body=body)
    assert trio.current_time() - began < ANSWERED_SECONDS
    assert answer.status == 503, answer
    assert int(answer.headers["retry-after"]) > 0
    said = answer.json()
    assert said["field"] is None
    assert " " in said["error"]


def break_it(cluster: KafkaCluster, how: str) -> None:
    if how == "killed":
        cluster.kill()
    else:
        cluster.freeze()


async def produce(cluster: KafkaCluster, topic: str, *texts: str, partition: int | None = 0) -> None:
    await trio.to_thread.run_sync(lambda: cluster.produce_many(topic, [message(text) for text in texts], partition=partition))


def texts(client: ChatClient) -> list[str]:
    return [delivery.text for delivery in client.received]


def cpu_seconds(pid: int) -> float:
    """Return what a process has computed since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.promise("p-starts-without-brokers", "p-not-ready")
async def test_started_without_a_broker_it_serves_and_delivers_once_there_is_one(hanging: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("global")
    hanging.create_topic(topic)
    hanging.create_topic(chats.topic("room"))
    hanging.kill()
    async with spawned(settings=chats.settings_for(hanging)) as server:
        assert (await http(server.url, "GET", "/health")).json() == {"status": "Consumer is running"}
        answer = await http(server.url, "GET", "/ready")
        assert answer.status == 503
        assert "subscriptions" in answer.json()["error"]
        began = trio.current_time()
        async with open_chat(server.url, "ann") as ann, open_chat(server.url, "bob") as bob:
            assert trio.current_time() - began < 2 * ACCEPTED_SECONDS + BUSY_SECONDS
            await assert_refused(server, "POST", "/subscribing/ann?topic=room")
            await until(lambda: _says(server, "no broker"))
            lines, spent = len(server.stderr.splitlines()), cpu_seconds(server.pid)
            await trio.sleep(3)
            assert cpu_seconds(server.pid) - spent < 0.45, "it polls busily"
            assert len(server.stderr.splitlines()) - lines <= 4, server.stderr
            await trio.to_thread.run_sync(hanging.start)
            await produce(hanging, topic, *(f"at once {n}" for n in range(20)))
            await until(lambda: ready(server))
            assert await subscribed(server, "ann", "room")
            assert await chats_of(server, "ann") == ["global", "room"]
            await produce(hanging, chats.topic("room"), "for ann")
            await produce(hanging, topic, "the last one")
            for client, expected in ((ann, 22), (bob, 21)):
                await client.take(expected)
            assert [text for text in texts(ann) if text != "for ann"] == texts(bob)
            assert texts(bob) == [*(f"at once {n}" for n in range(20)), "the last one"]
        assert len(server.stderr.splitlines()) < 40, server.stderr
        assert "Traceback" not in server.stderr


async def _says(server: ChildServer, what: str) -> bool:
    return what in (await http(server.url, "GET", "/ready")).text


@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.promise("p-unready-loses-nothing")
async def test_brokers_that_go_and_come_back_cost_nobody_a_message(hanging: KafkaCluster, chats: Chats, how: str) -> None:
    topic = chats.topic("global")
    hanging.create_topic(topic, 2)
    hanging.create_topic(chats.topic("room"))
    async with serving(chats.settings_for(hanging, sending__enabled=True)) as server:
        await until(lambda: ready(server))
        assert await subscribed(server, "ann", "room")
        async with open_chat(server.url, "ann") as ann, open_chat(server.url, "bob") as bob:
            sent = [f"before {n}" for n in range(100)]
            await produce(hanging, topic, *sent)
            break_it(hanging, how)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(assert_refused, server, "POST", "/subscribing/ann?topic=no")
                nursery.start_soon(assert_refused, server, "DELETE", "/subscribing/ann")
                nursery.start_soon(assert_refused, server, "GET", "/subscribing/ann")
                nursery.start_soon(assert_refused, server, "POST", "/send-message/chat/room", {"sender": "ann", "text": "no"})
            await until(lambda: unready(server))
            await ann.ping()
            began = trio.current_time()
            async with open_chat(server.url, "late") as late:
                assert trio.current_time() - began < ACCEPTED_SECONDS + BUSY_SECONDS
                if how == "killed":
                    await trio.to_thread.run_sync(hanging.start)
                else:
                    hanging.thaw()
                after = [f"after {n}" for n in range(100)]
                await produce(hanging, topic, *after)
                await until(lambda: ready(server))
                await ann.take(200)
                await bob.take(200)
                await late.take_until("after 99")
            await produce(hanging, chats.topic("room"), "mark")
            await ann.take_until("mark")
            assert await chats_of(server, "ann") == ["global", "room"]
            assert [text for text in texts(ann) if text != "mark"] == sent + after
            assert texts(bob) == sent + after
            assert len(set(texts(late))) == len(late.received)
            assert texts(late)[-100:] == after
    assert [json.loads(record.value)["text"] for record in hanging.records(chats.topic("room"))] == ["mark"]


async def test_a_session_ends_at_once_though_it_waits_for_a_broker_or_its_peer(hanging: KafkaCluster, chats: Chats) -> None:
    hanging.create_topic(chats.topic("global"))
    big = [message("x" * 100_000)] * 200
    async with serving(chats.settings_for(hanging, memory__bytes=1 << 20, limits__write_seconds=60.0)) as server:
        await until(lambda: ready(server))
        async with (
            open_raw(server.url, receive_path("stuck"), receive_buffer=4096) as stuck,
            open_raw(server.url, receive_path("reads"), receive_buffer=4096) as reads,
        ):
            await trio.to_thread.run_sync(lambda: hanging.produce_many(chats.topic("global"), big, partition=0))
            await until(lambda: _shows(server, "kafka_chat_owed_bytes", lambda value: value > 0))
            hanging.freeze()
            with trio.move_on_after(1):  # it reads what is in memory, and then needs a page that no broker brings
                while True:
                    await reads.next_text()
            for client in (stuck, reads):
                before, began = server.service.slots_taken, trio.current_time()
                client.reset()
                await until(lambda before=before: _taken(server, before - 1))
                assert trio.current_time() - began < ENDED_SECONDS
            hanging.thaw()


async def _shows(server: Server, metric: str, holds: Callable[[float], bool]) -> bool:
    (value,) = [line.split()[1] for line in (await http(server.url, "GET", "/metrics")).text.splitlines() if line.startswith(f"{metric} ")]
    return holds(float(value))


async def test_a_client_that_leaves_while_it_is_let_in_gives_its_place_back(hanging: KafkaCluster, chats: Chats) -> None:
    hanging.kill()
    async with serving(chats.settings_for(hanging)) as server:
        for _ in range(3):
            async with open_raw(server.url) as client:
                await client.send(handshake_request(receive_path("ann")))
                await until(lambda: _taken(server, 1))
                client.reset()
                began = trio.current_time()
                await until(lambda: _taken(server, 0))
                assert trio.current_time() - began < ENDED_SECONDS + BUSY_SECONDS


async def _taken(server: Server, places: int) -> bool:
    return server.service.slots_taken == places


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_closing_the_service_is_not_held_up(hanging: KafkaCluster, chats: Chats, how: str) -> None:
    hanging.create_topic(chats.topic("global"))
    big = [message("x" * 100_000)] * 200
    async with serving(chats.settings_for(hanging, server__drain_seconds=1.0, memory__bytes=1 << 20)) as server:
        await until(lambda: ready(server))
        async with (
            open_raw(server.url, receive_path("stuck"), receive_buffer=4096),
            open_raw(server.url, receive_path("stuck too"), receive_buffer=4096),
        ):
            await trio.to_thread.run_sync(lambda: hanging.produce_many(chats.topic("global"), big, partition=0))
            await until(lambda: _shows(server, "kafka_chat_owed_bytes", lambda value: value > 0))
            break_it(hanging, how)
            await until(lambda: unready(server))
            began = trio.current_time()
            server.shut_down()
            await server.ended()
            assert trio.current_time() - began < 1 + 2 + BUSY_SECONDS  # the drain, then the Kafka clients


@pytest.mark.deadline(240)
async def test_one_of_three_brokers_is_killed_while_messages_are_sent(three_brokers: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("global")
    three_brokers.create_topic(topic, 3)
    three_brokers.create_topic(chats.topic("alone"), 3, replication=1)
    sent: dict[int, list[str]] = {0: [], 1: [], 2: []}
    stop = trio.Event()

    async def send(partition: int) -> None:
        number = 0
        while not stop.is_set():
            text = f"{partition}-{number}"
            await produce(three_brokers, topic, text, partition=partition)
            sent[partition].append(text)
            number += 1

    async with serving(chats.settings_for(three_brokers)) as server:
        await until(lambda: ready(server))
        assert await subscribed(server, "ann", "alone")
        async with open_chat(server.url, "ann") as ann, open_chat(server.url, "bob") as bob:
            async with trio.open_nursery() as senders:
                for partition in sent:
                    senders.start_soon(send, partition)
                await bob.take(30)
                victim = three_brokers.leader(chats.topic("alone"), 1)
                await trio.to_thread.run_sync(three_brokers.kill, victim)

                async def names_it() -> bool:
                    answer = await http(server.url, "GET", "/ready")
                    assert answer.status == 200, answer
                    return any(f"{chats.topic('alone')}/1 " in notice for notice in answer.json()["notices"])

                await until(names_it)  # the cluster itself misses a broker after 3 s
                assert await subscribed(server, "bob", "other")
                now = len(bob.received)
                await until(lambda: _more(bob, now + 30))
                await trio.to_thread.run_sync(three_brokers.start, victim)
                now = len(bob.received)
                await until(lambda: _more(bob, now + 30))
                stop.set()
            await until(lambda: min(len(ann.received), len(bob.received)) >= sum(map(len, sent.values())))
        for client in (ann, bob):
            for partition, expected in sent.items():
                assert [text for text in texts(client) if text.startswith(f"{partition}-")] == expected


async def _more(client: ChatClient, count: int) -> bool:
    return len(client.received) >= count
