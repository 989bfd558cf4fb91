"""One broker of three hangs: clients of chats with other leaders are not disturbed, whatever is requested of that broker."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.calls import running, subscribe
from tests.support.chats import message
from tests.support.clients import http, open_chat, receive_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.brokers import KafkaCluster
    from tests.support.chats import Chats

pytestmark = pytest.mark.deadline(180)

NOBODY_WAITS_SECONDS = 1.0
BUSY_SECONDS = 1.5  # what a shared machine may add
CLIENTS = 20


def led_by(cluster: KafkaCluster, chats: Chats, node: int, number: int) -> str:
    """Make a chat that this node leads alone, and return its name."""
    chat = f"of{node}-{number}"
    cluster.create_topic(chats.topic(chat), nodes=[node], min_insync_replicas=1)
    cluster.produce_many(chats.topic(chat), [message(str(n)) for n in range(5)], partition=0)
    return chat


@pytest.mark.promise("p-brokers-that-hang")
async def test_nobody_waits_for_a_leader_that_does_not_answer(three_brokers: KafkaCluster, chats: Chats) -> None:
    cluster = three_brokers
    cluster.create_topic(chats.topic("global"))
    # On one node alone: else Kafka itself keeps a writer waiting, for the replica on the node that hangs, until that is given up.
    cluster.create_topic(chats.subscriptions_topic, nodes=[1], min_insync_replicas=1, cleanup_policy="compact")
    async with running(chats.settings_for(cluster, sending__enabled=True), check_leaks=False) as server:
        hung_node = next(node for node in (1, 2, 3) if node != cluster.leader(chats.subscriptions_topic))
        well_node = cluster.leader(chats.subscriptions_topic)
        hung = [led_by(cluster, chats, hung_node, number) for number in range(2)]
        well = [led_by(cluster, chats, well_node, number) for number in range(6)]
        for chat in (hung[0], well[0]):
            assert (await http(server.url, "GET", f"/history/{chat}?rewind=2")).status == 200
        await subscribe(server.url, "ann", well[0])
        async with open_chat(server.url, "ann") as ann, trio.open_nursery() as nursery:
            cluster.freeze(hung_node)

            async def follow(number: int) -> None:
                path = f"{receive_path(f'user{number}')}?chat={hung[number % 2]}&from={1_700_000_000_000 + number}"
                async with open_chat(server.url, f"user{number}", path=path):
                    await trio.sleep_forever()

            async def ask_for_history(number: int) -> None:
                while True:
                    await http(server.url, "GET", f"/history/{hung[number % 2]}?from={1_700_000_000_000 + number}")

            for number in range(CLIENTS):
                nursery.start_soon(follow, number)
                nursery.start_soon(ask_for_history, number)
            for chat in well:
                for query in ("", "direction=backward", "from=-1h"):
                    with waits_for_nobody():
                        answer = await http(server.url, "GET", f"/history/{chat}?{query}")
                    assert answer.status == 200, answer
                    assert len(answer.json()["messages"]) == 5
                with waits_for_nobody():
                    async with open_chat(server.url, "bob", path=f"{receive_path('bob')}?chat={chat}&from=-1h") as bob:
                        assert [delivery.text for delivery in await bob.take(5)] == list("01234")
            with waits_for_nobody():
                await subscribe(server.url, "ann", well[1])
            with waits_for_nobody():
                sent = await http(server.url, "POST", f"/send-message/chat/{well[1]}", json_body={"sender": "bob", "text": "new"})
                assert sent.status == 200, sent
                assert (await ann.next()).text == "new"
            nursery.cancel_scope.cancel()


@contextmanager
def waits_for_nobody() -> Iterator[None]:
    began = trio.current_time()
    yield
    assert trio.current_time() - began < NOBODY_WAITS_SECONDS + BUSY_SECONDS
