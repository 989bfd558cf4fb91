"""No request leaves anything of ours to the garbage collector: a full collection over millions of objects would stop everybody."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from tests.support.brokers import KafkaCluster
from tests.support.calls import running, subscribe
from tests.support.chats import Chats, message
from tests.support.every_request import VISITS
from tests.support.garbage import circles_of_ours
from tests.support.serving import Server

VISITS_EACH = 3
SETTLE_SECONDS = 30.0


@pytest.fixture
async def server(kafka: KafkaCluster, chats: Chats) -> AsyncIterator[Server]:
    kafka.create_topic(chats.topic("global"))
    kafka.produce(chats.topic("global"), message("the first"))
    async with running(chats.settings_for(kafka, sending__enabled=True)) as server:
        await subscribe(server.url, "many", *[f"absent-of-many{number}" for number in range(100)])
        yield server


async def all_gone(server: Server) -> None:
    """Wait until no client's task is left."""
    with trio.fail_after(SETTLE_SECONDS):
        while server.service.slots_taken:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.02)
    for _ in range(20):
        await trio.lowlevel.checkpoint()


@pytest.mark.promise("p-no-garbage")
async def test_everything_that_a_client_can_ask_for_leaves_no_circle_of_ours(server: Server) -> None:
    left = {}
    for name, visit in VISITS.items():
        await visit(server.url)  # what is made once
        await all_gone(server)
        with circles_of_ours() as circles:
            for _ in range(VISITS_EACH):
                await visit(server.url)
            await all_gone(server)
        if circles:
            left[name] = dict(circles)
    assert not left, "\n".join(f"{name}: {circles}" for name, circles in left.items())
