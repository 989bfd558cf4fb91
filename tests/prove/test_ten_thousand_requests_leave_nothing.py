"""Ten thousand requests of each kind leave the old generation of the garbage collector as it was."""

from __future__ import annotations

import gc
import time

import pytest
import trio

from tests.support.brokers import KafkaCluster
from tests.support.calls import running, subscribe
from tests.support.chats import Chats, message
from tests.support.every_request import VISITS

from .scale import FULL, tell

REQUESTS = 10_000 if FULL else 40
AT_A_TIME = 20
# Objects: caches that fill, what is young when it is counted, and a thousand deadlines of scopes that have ended, three objects each,
# which trio keeps until it tidies its heap up.
GROWTH = 5_000
KINDS = None if FULL else ("what somebody follows", "an address where nothing is", "ops, good and bad")
SLOW = ("a page that waits",)  # a second each


@pytest.mark.deadline(7_200)
async def test_ten_thousand_requests_of_each_kind_leave_the_old_generation_as_it_was(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    kafka.produce(chats.topic("global"), message("the first"))
    async with running(
        chats.settings_for(kafka, sending__enabled=True, memory__bytes=256 << 10)
    ) as server:  # what is kept of messages is no leak
        for first in (0, 99):
            await subscribe(server.url, "many", *[f"absent-of-many{number}" for number in range(first, first + 99)])
        grown = {}
        for name in KINDS or VISITS:
            visit = VISITS[name]
            await visit(server.url)
            gc.collect()
            gc.freeze()
            before = len(gc.get_objects(generation=2))
            left = REQUESTS if name not in SLOW else REQUESTS // 100

            async def go_on(visit=visit) -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    await visit(server.url)

            async with trio.open_nursery() as nursery:
                for _ in range(AT_A_TIME):
                    nursery.start_soon(go_on)
            grown[name] = len(gc.get_objects(generation=2)) - before
            began = time.process_time()
            gc.collect()
            gc.unfreeze()
            tell(name, old_generation_grew_by=grown[name], full_collection_seconds=time.process_time() - began)
    assert not {name: objects for name, objects in grown.items() if objects > GROWTH}
