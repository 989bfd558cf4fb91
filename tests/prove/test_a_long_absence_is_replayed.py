"""A client that was away for thousands of messages gets each of them once, from memory or, on another instance, from Kafka."""

from __future__ import annotations

import pytest
import trio

from tests.prove.scale import tell
from tests.support.brokers import KafkaCluster
from tests.support.calls import running
from tests.support.chats import Chats
from tests.support.noted import noted, until_live
from tests.support.resuming_client import ResumingClient
from tests.support.resuming_visit import Cut
from tests.support.steady_producer import SteadyProducer, producing

MISSED = 10_000
PARTITIONS = 3
PER_SECOND = 1000
LOOSE_SECONDS = 30.0  # a hundred times what it takes: something is broken, not slow


@pytest.mark.parametrize("load", [0, PER_SECOND], ids=["quiet", "under_load"])
@pytest.mark.deadline(120)
async def test_ten_thousand_missed_messages_come_in_one_go(kafka: KafkaCluster, chats: Chats, load: int):
    settings = chats.settings_for(kafka)
    async with (
        running(settings, check_leaks=False) as first,
        running(settings, check_leaks=False) as second,
        noted(kafka, chats, partitions=PARTITIONS) as chat,
    ):
        stays, here, elsewhere = (chat.client(user) for user in ("stays", "here", "elsewhere"))
        for client in (stays, here, elsewhere):  # who stays keeps the chat in the first instance's memory
            await client.come(first.url)
            await until_live(client)
        for client in (here, elsewhere):
            await client.cut(Cut.RESET)
        producer = SteadyProducer(kafka, [chat.room], per_second=load, ledger=chat.ledger)
        await trio.to_thread.run_sync(producer.some, MISSED)
        await chat.get_all(stays)
        async with producing(producer):
            for client, url in ((here, first.url), (elsewhere, second.url)):
                await client.come(url)
                await client.read_until(lambda c=client: c.visit.messages >= MISSED, seconds=60)
                seconds = trio.current_time() - client.visit.began
                tell(
                    f"{MISSED} missed, {'from memory' if client is here else 'from Kafka'}, {load} a second beside",
                    first_seconds=first_seconds(client),
                    all_seconds=seconds,
                )
                assert client.visit.resume == "exact"
                assert seconds < LOOSE_SECONDS
        await chat.get_all(*chat.clients)


def first_seconds(client: ResumingClient) -> float:
    """Return how long the first of them took, from connecting on."""
    assert client.visit.first_message is not None
    return client.visit.first_message - client.visit.began
