"""An event during a look is seen by that look, or wakes the next one, at whichever checkpoint it comes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.resume_cursor import parse
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.history.query import PageQuery
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core

ROOM = "kafka.chat.room"
BLUE = frozenset({"blue"})
LEAST_STEPS = 10  # fewer, and the scenario has hardly a checkpoint: it proves nothing
WAIT_SECONDS = 30.0


class ActAt(trio.abc.Instrument):
    """Acts once, right after the n-th step of any task.

    Attributes:
        acted_at: when; None: not yet.
    """

    def __init__(self, steps: int, act: Callable[[], None]) -> None:
        self.acted_at: float | None = None
        self._left = steps
        self._act = act

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self.acted_at = trio.current_time()
            self._act()


@contextmanager
def acting(steps: int, act: Callable[[], None]) -> Iterator[ActAt]:
    instrument = ActAt(steps, act)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield instrument
    finally:
        trio.lowlevel.remove_instrument(instrument)


def news_to(core: Core, partition: int) -> Callable[[], None]:
    """What puts one message there that only some see, and one that all do."""
    return lambda: core.kafka.produce(ROOM, value("hidden", tag="red"), value("news", tag="blue"), partition=partition) and None


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("tags", [None, BLUE])
@pytest.mark.parametrize("followed", [False, True])
@pytest.mark.parametrize("pages", [1, 2])
async def test_pages_that_wait_are_answered_at_once_whenever_a_record_comes(autojump_clock, partitions, tags, followed, pages):
    steps = 0
    while await _pages_that_wait(steps + 1, partitions, tags, followed=followed, pages=pages):
        steps += 1
    assert steps > LEAST_STEPS


async def _pages_that_wait(steps: int, partitions: int, tags: frozenset[str] | None, *, followed: bool, pages: int) -> bool:
    """Have a record come right after a step of the loop; return whether the pages were not still before."""
    async with open_core() as core:
        core.kafka.create(ROOM, partitions=partitions)
        core.kafka.produce(ROOM, value("old"))
        history, began = core.history, trio.current_time()
        cursor = parse((await history.page(PageQuery(chat="room"))).next)

        async def ask() -> None:
            page = await history.page(PageQuery(chat="room", cursor=cursor, tags=tags, wait_seconds=WAIT_SECONDS))
            if acting_now.acted_at is None or acting_now.acted_at - began > WAIT_SECONDS / 2:
                return
            texts = [json.loads(message)["text"] for message in page.messages]
            assert texts[-1:] == ["news"], f"it came after {steps} steps, and was not there"
            assert trio.current_time() - acting_now.acted_at < 1, f"it came after {steps} steps, and was there much later"

        with ExitStack() as stack:
            if followed:  # then its logs are open already
                core.chats["bob"] = {"room"}
                stack.enter_context(core.audience.joined(core.session("bob"), known=True))
                await wait_all_tasks_blocked()
            acting_now = stack.enter_context(acting(steps, news_to(core, partitions - 1)))
            async with trio.open_nursery() as nursery:
                for _ in range(pages):
                    nursery.start_soon(ask)
        return acting_now.acted_at is not None and acting_now.acted_at - began < WAIT_SECONDS / 2


@pytest.mark.parametrize("format", list(Format))
@pytest.mark.parametrize("tags", [None, BLUE])
async def test_sockets_and_streams_get_a_record_whenever_it_comes(autojump_clock, format, tags):
    steps = 0
    while await _session(steps + 1, SessionOptions(format=format, tags=tags, chats=("room",))):
        steps += 1
    assert steps > LEAST_STEPS


async def _session(steps: int, options: SessionOptions) -> bool:
    async with open_core() as core:
        core.kafka.create(ROOM, partitions=2)
        core.kafka.produce(ROOM, value("old"))
        client = FakeClient()
        with acting(steps, news_to(core, 1)) as acting_now:
            async with core.connected(client, options=options):
                listening = trio.current_time()
                await trio.sleep(WAIT_SECONDS)
                if acting_now.acted_at is None:
                    return False
                assert b'"news"' in client.got or acting_now.acted_at <= listening, f"it came after {steps} steps"
        return acting_now.acted_at - listening < WAIT_SECONDS / 2


async def test_a_socket_follows_what_its_user_subscribes_to_whenever_that_is(autojump_clock):
    steps = 0
    while await _subscribing(steps + 1):
        steps += 1
    assert steps > LEAST_STEPS


async def _subscribing(steps: int) -> bool:
    async with open_core() as core, trio.open_nursery() as nursery:
        core.kafka.create("kafka.chat.global")
        core.kafka.create(ROOM)
        client = FakeClient()
        topic_id = core.kafka.topics[ROOM].topic_id
        change = SubscriptionChange(username="ann", chat="room", subscribed=True, topic_id=topic_id, starts={0: 0}, offset=3)

        def subscribe() -> None:
            core.subscribed["ann", "room"] = change
            nursery.start_soon(core.audience.user_changed, change)

        with acting(steps, subscribe) as acting_now:
            async with core.connected(client, options=SessionOptions(format=Format.V1)):
                began = trio.current_time()
                await trio.sleep(WAIT_SECONDS)
                core.kafka.produce(ROOM, value("news"))
                await wait_all_tasks_blocked()
    if acting_now.acted_at is None or acting_now.acted_at - began > WAIT_SECONDS / 2:
        return False
    assert "news" in [frame.get("text") for frame in client.deliveries], f"subscribed after {steps} steps"
    return True
