"""Pending requests of a client that leaves while brokers are away end with it, on every route, and inside the Kafka client as well."""

from __future__ import annotations

import gc
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.calls import running, until
from tests.support.chats import message
from tests.support.clients import http, open_raw, receive_path
from tests.support.deadlines import HANG_SECONDS
from tests.support.v1_client import open_v1

if TYPE_CHECKING:
    from tests.support.brokers import KafkaCluster
    from tests.support.chats import Chats

pytestmark = pytest.mark.deadline(180)

CLIENTS = 60
# Eight requests of a leader at a time, eight tries of each, and what the Tail and the subscriptions ask.
MOST_IN_THE_KAFKA_CLIENT = 100


def unanswered() -> int:
    """Return how many questions the Kafka client has not answered."""
    return sum(isinstance(found, Future) and not found.done() for found in gc.get_objects())


async def test_nothing_is_left_of_them(hanging: KafkaCluster, chats: Chats) -> None:
    hanging.create_topic(chats.topic("global"), partitions=2)
    hanging.produce_many(chats.topic("global"), [message(str(number)) for number in range(5)], partition=0)
    async with running(chats.settings_for(hanging), check_leaks=False) as server:
        offsets = server.service._context.offsets
        async with open_v1(server.url, "ann", ("from", "earliest")) as ann:
            await ann.texts(5)
            cursor = ann.cursor
        before = unanswered()
        hanging.kill()
        asked = 0

        async def come_and_go(number: int) -> None:
            nonlocal asked
            time_ms = 1_700_000_000_000 + number
            at_once = [
                partial(open_raw, server.url, f"{receive_path('ann')}?meta=1&from={time_ms}&until={time_ms + 1}"),
                partial(open_raw, server.url, f"{receive_path('ann')}?cursor={cursor}"),
            ]
            with trio.move_on_after(HANG_SECONDS):
                async with at_once[number % 2]():
                    asked = max(asked, len(offsets))

        async def read_and_leave(target: str) -> None:
            with trio.move_on_after(1.0):
                await http(server.url, "GET", target)

        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(come_and_go, number)
                nursery.start_soon(read_and_leave, f"/history/global?from={1_700_000_000_000 + number}")
                nursery.start_soon(read_and_leave, f"{receive_path('ann')}/events?from={1_700_000_000_000 + number}")
        assert asked > 0
        await until(lambda: len(offsets) == 0)
        assert unanswered() - before < MOST_IN_THE_KAFKA_CLIENT
        await until(lambda: unanswered() - before < 30)
