"""Brokers that take requests and do not answer: no wrong offset is returned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial

import pytest
import trio

from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.errors import BrokerUnreachable
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.lookup import open_lookup
from kafka_chat.settings.model import KafkaSettings
from tests.support.brokers import KafkaCluster
from tests.support.calls import running
from tests.support.chats import Chats, message
from tests.support.clients import http
from tests.support.deadlines import HANG_SECONDS

pytestmark = pytest.mark.deadline(120)


async def asked_in_vain(ask: Callable[[], Awaitable[Mapping[PartitionKey, int]]]) -> None:
    """Ask twice, because an answer may have been on its way; an answer that comes is right."""
    for _ in range(2):
        try:
            told = await ask()
        except BrokerUnreachable:
            return
        assert list(told.values()) in ([5, 0], [0, 0])
    pytest.fail("a broker that hangs has answered")


async def test_offsets_are_told_or_they_are_not_never_made_up(hanging: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("t")
    identity = hanging.create_topic(topic, partitions=2)
    hanging.produce_many(topic, ["m"] * 5, partition=0)
    keys = [PartitionKey(topic, identity, partition) for partition in (0, 1)]
    async with open_lookup(ClientConfig(KafkaSettings(bootstrap_servers=hanging.bootstrap, embedded=False))) as lookup:
        asks = (lookup.last_stable_offsets, lookup.first_offsets, partial(lookup.offsets_at, time_ms=0))
        told = [[5, 0], [0, 0], [0, 0]]
        assert [list((await ask(keys)).values()) for ask in asks] == told
        hanging.freeze()
        async with trio.open_nursery() as nursery:
            for ask in asks:
                nursery.start_soon(asked_in_vain, partial(ask, keys))
        hanging.thaw()
        with trio.fail_after(HANG_SECONDS):
            for ask, offsets in zip(asks, told, strict=True):
                expected = dict(zip(keys, offsets, strict=True))
                answer: Mapping[PartitionKey, int] = {}
                while answer != expected:  # a broker that comes back leads nothing at first, and what has no leader is left out
                    with suppress(BrokerUnreachable):
                        answer = await ask(keys)
                        assert answer.items() <= expected.items()
                    await trio.sleep(0.1)


async def assert_refused(url: str, target: str) -> None:
    began = trio.current_time()
    answer = await http(url, "GET", target)
    assert answer.status == 503, answer
    assert "retry-after" in answer.headers
    assert trio.current_time() - began < 8


async def test_pages_of_history_are_refused_until_the_brokers_answer_again(hanging: KafkaCluster, chats: Chats) -> None:
    for chat in ("global", "room1"):
        hanging.create_topic(chats.topic(chat), partitions=2)
        hanging.produce_many(chats.topic(chat), [message(str(number)) for number in range(5)], partition=0)
    async with running(chats.settings_for(hanging), check_leaks=False) as server:
        targets = [f"/history/{chat}?{query}" for chat in ("global", "room1") for query in ("", "direction=backward", "rewind=2")]
        assert [(await http(server.url, "GET", target)).status for target in targets] == [200] * 6
        hanging.freeze()
        async with trio.open_nursery() as nursery:
            for target in targets:
                nursery.start_soon(assert_refused, server.url, target)
        hanging.thaw()
        with trio.fail_after(HANG_SECONDS):
            for target in targets:
                while (await http(server.url, "GET", target)).status != 200:
                    pass
