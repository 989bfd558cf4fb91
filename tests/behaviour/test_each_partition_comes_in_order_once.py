"""A client gets every committed message of a partition, in order, once, whatever happens to the topic."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from tests.support.brokers import Broker, KafkaCluster
from tests.support.calls import running, subscribe, until
from tests.support.chats import Chats, message
from tests.support.clients import ChatClient, open_chat

COMES_SECONDS = 5.0  # from the acknowledgement of a message in a topic or a partition that is new, to its delivery


def texts(client: ChatClient) -> list[str]:
    return [delivery.text for delivery in client.received]


@pytest.mark.promise("p-in-order-once")
async def test_four_partitions_under_load_come_in_order_to_those_who_come_meanwhile(broker: Broker, chats: Chats) -> None:
    topic, listeners_wanted = chats.topic("global"), 8
    broker.create_topic(topic, 4)
    sent: dict[int, list[str]] = {partition: [] for partition in range(4)}
    expected: list[tuple[ChatClient, dict[int, int]]] = []
    all_sent = trio.Event()

    async def send(partition: int) -> None:
        while len(expected) < listeners_wanted or len(sent[partition]) < 200:
            some = [f"{partition}:{len(sent[partition]) + n}" for n in range(25)]
            sent[partition] += some
            await trio.to_thread.run_sync(partial(broker.produce_many, topic, map(message, some), partition=partition))
            await trio.sleep(0.05)  # eight clients in pure Python, in this very process, have to keep up

    async def listen(url: str, user: str) -> None:
        async with open_chat(url, user) as client:
            begun = {partition: len(sent[partition]) for partition in sent}
            expected.append((client, begun))
            await all_sent.wait()
            last = {texts[-1] for texts in sent.values()}
            await until(lambda: last <= {delivery.text for delivery in client.received})
            for partition, since in begun.items():
                got = texts_of(client, partition)
                assert got == sent[partition][-len(got) :], "there is a hole, something twice, or another order"
                assert len(got) >= len(sent[partition]) - since, "what was sent after the handshake is missing"

    def texts_of(client: ChatClient, partition: int) -> list[str]:
        return [text for text in texts(client) if text.startswith(f"{partition}:")]

    async with running(chats.settings_for(broker)) as server, trio.open_nursery() as listeners:
        async with trio.open_nursery() as senders:
            for partition in sent:
                senders.start_soon(send, partition)
            for number in range(listeners_wanted):
                listeners.start_soon(listen, server.url, f"user{number}")
                await until(lambda number=number: len(expected) > number)
        all_sent.set()


async def test_a_transaction_counts_when_it_is_committed_and_never_when_it_is_aborted(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("global")
    kafka.create_topic(topic)
    committed, aborted = [await trio.to_thread.run_sync(kafka.transaction) for _ in range(2)]
    async with running(chats.settings_for(kafka)) as server, open_chat(server.url, "alice") as client:
        committed.produce(topic, message("committed 1"))
        kafka.produce(topic, message("meanwhile"))
        committed.produce(topic, message("committed 2"))
        assert texts(client) == []
        await trio.to_thread.run_sync(committed.commit)
        assert await client.texts(3) == ["committed 1", "meanwhile", "committed 2"]
        aborted.produce(topic, message("aborted"))
        await trio.to_thread.run_sync(aborted.abort)
        kafka.produce(topic, message("after"))
        assert await client.texts(1) == ["after"]


async def test_a_topic_that_comes_later_is_followed_from_its_first_message(broker: Broker, chats: Chats) -> None:
    async with running(chats.settings_for(broker)) as server:
        await subscribe(server.url, "alice", "room1")
        async with open_chat(server.url, "alice") as client:
            for chat in ("global", "room1"):
                broker.create_topic(chats.topic(chat), 4)
                for number in range(4):
                    broker.produce(chats.topic(chat), message(f"{chat} {number}"), partition=number)
            assert {*await client.texts(8, seconds=COMES_SECONDS)} == {f"{c} {n}" for c in ("global", "room1") for n in range(4)}


async def test_partitions_that_are_added_are_followed_from_their_first_message(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("global")
    kafka.create_topic(topic)
    async with running(chats.settings_for(kafka)) as server, open_chat(server.url, "alice") as client:
        await trio.to_thread.run_sync(kafka.add_partitions, topic, 3)
        for number in (2, 1, 0):
            kafka.produce(topic, message(f"partition {number}"), partition=number)
        assert {*await client.texts(3, seconds=COMES_SECONDS)} == {"partition 0", "partition 1", "partition 2"}


@pytest.mark.parametrize("records", [2, 40], ids=["shorter", "longer"])
async def test_a_topic_that_is_made_anew_is_followed_from_its_first_message(kafka: KafkaCluster, chats: Chats, records: int) -> None:
    topic = chats.topic("global")
    kafka.create_topic(topic)
    async with running(chats.settings_for(kafka)) as server, open_chat(server.url, "alice") as client:
        kafka.produce_many(topic, [message(f"old {n}") for n in range(10)])
        await client.texts(10)
        await trio.to_thread.run_sync(kafka.delete_topic, topic)
        await trio.to_thread.run_sync(kafka.create_topic, topic)
        new = [f"new {n}" for n in range(records)]
        await trio.to_thread.run_sync(kafka.produce_many, topic, [message(text) for text in new])
        await until(lambda: texts(client)[-records:] == new, seconds=COMES_SECONDS)
        kafka.produce(topic, message("last"))
        await client.take_until("last")
        # Those of the new topic that were read before the change was seen come twice: first behind the old ones.
        doubles = texts(client)[10 : -records - 1]
        assert doubles == new[10 : 10 + len(doubles)]
        assert texts(client)[-records - 1 :] == [*new, "last"]
