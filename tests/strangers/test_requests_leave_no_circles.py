"""No request leaves reference cycles of ours: a full collection over millions of objects would block everything."""

from __future__ import annotations

import concurrent.futures
import gc
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import FunctionType

import pytest
import trio

from kafka_chat.process.gc_tuning import MIDDLE_ROUNDS, YOUNG_OBJECTS, YOUNG_ROUNDS
from tests.support.brokers import EmbeddedBroker, KafkaCluster
from tests.support.calls import running, subscribe, until
from tests.support.chats import Chats, message
from tests.support.every_request import VISITS
from tests.support.serving import Server

OURS = ("kafka_chat", "confluent_kafka", "cimpl")
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
    await until(lambda: not server.service.slots_taken, seconds=SETTLE_SECONDS)
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


REFUSED = 400
AT_A_TIME = 20
LEFT = 100  # functions, of 400: those of the last requests, which the collector has not looked at yet


async def test_requests_that_no_route_takes_leave_nothing_that_gets_old(embedded: EmbeddedBroker, chats: Chats) -> None:
    embedded.create_topic(chats.topic("global"))
    before = gc.get_threshold()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, MIDDLE_ROUNDS)  # as in a process that serves
    try:
        async with running(chats.settings_for(embedded)) as server:
            for name in ("a method that is not allowed", "an address where nothing is"):
                await VISITS[name](server.url)
                await many(server, name)
                assert matchers_left() < LEFT, name
    finally:
        gc.set_threshold(*before)


async def many(server: Server, name: str) -> None:
    """Ask for the same over and over, some at a time, so that there are always requests that are under way when the collector looks."""
    left = REFUSED

    async def go_on() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await VISITS[name](server.url)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_A_TIME):
            nursery.start_soon(go_on)


def matchers_left() -> int:
    """Return how many of werkzeug's functions that refer to themselves there are, one for each request that was matched to a route."""
    return sum(
        isinstance(one, FunctionType) and one.__qualname__ == "StateMachineMatcher.match.<locals>._match" for one in gc.get_objects()
    )


@contextmanager
def circles_of_ours() -> Iterator[Counter[str]]:
    """Count what the block leaves in circles that is of this service, or of the Kafka client; filled when the block ends.

    Circles of Quart and werkzeug that hold nothing of ours are not counted: they are dead as soon as they are made, so a young
    collection takes them.
    """
    found: Counter[str] = Counter()
    gc.collect(1)
    gc.freeze()  # so that the collection at the end looks at what the block has made alone
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.update(name for name in map(_name, gc.garbage) if name)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()


def _name(thing: object) -> str | None:
    """Return what `thing` is called, if it is of ours."""
    kind = type(thing)
    if inspect.isframe(thing):
        return f"a frame of {thing.f_code.co_qualname}" if "/kafka_chat/" in thing.f_code.co_filename else None
    if inspect.iscoroutine(thing) or inspect.isasyncgen(thing):
        code = thing.cr_code if inspect.iscoroutine(thing) else thing.ag_code
        return f"a coroutine of {thing.__qualname__}" if "/kafka_chat/" in code.co_filename else None
    if inspect.isfunction(thing):
        return f"the function {thing.__qualname__}" if thing.__module__.startswith(OURS) else None
    if kind is concurrent.futures.Future or kind.__module__.startswith(OURS):
        return kind.__qualname__
    return None
