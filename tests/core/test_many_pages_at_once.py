"""However many pages are read at a time, each iteration of the loop stays short, so a live message arrives within milliseconds."""

from __future__ import annotations

import gc

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.delivery.history.query import Page, PageQuery
from tests.support.fake_topics import value
from tests.support.fakes import open_core
from tests.support.loop_steps import loop_rounds

TOPIC = "kafka.chat.room"
PAGES = 100
MOST_MS = 40.0  # with a turn of 2 ms for each of them it was 150; it is 6


@pytest.mark.parametrize("backward", [False, True])
async def test_a_hundred_pages_of_a_thousand_messages_make_no_long_round(autojump_clock, *, backward: bool):
    async with open_core() as core:
        core.kafka.create(TOPIC, partitions=2)
        for number in range(3000):
            core.kafka.produce(TOPIC, value(f"{number}" * 20), partition=number % 2)
        await wait_all_tasks_blocked()
        pages: list[Page] = []

        async def read() -> None:
            pages.append(await core.history.page(PageQuery(chat="room", limit=1000, backward=backward)))

        await read()  # what is rendered once for all is
        gc.disable()  # what a look at all objects costs is the test run's
        try:
            with loop_rounds() as rounds:
                async with trio.open_nursery() as nursery:
                    for _ in range(PAGES):
                        nursery.start_soon(read)
        finally:
            gc.enable()
        assert len(pages) == PAGES + 1
        assert all(page.messages == pages[0].messages and len(page.messages) == 1000 for page in pages)
        assert rounds.longest_ms < MOST_MS
