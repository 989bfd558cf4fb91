"""A page keeps the place of a partition that has no leader while it is read: later pages go on there, and it is not kept by caches."""

from __future__ import annotations

import json

import pytest
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.resume_cursor import parse
from kafka_chat.delivery.history.query import Page, PageQuery
from tests.support.fake_topics import value
from tests.support.fakes import Core, open_core

GLOBAL = "kafka.chat.global"
PARTITIONS = 3


async def a_chat(core: Core) -> str:
    """A chat with two messages in each partition; returns the cursor behind the first of each."""
    core.kafka.create(GLOBAL, partitions=PARTITIONS)
    for number in range(2):
        for partition in range(PARTITIONS):
            core.kafka.produce(GLOBAL, value(f"{partition} {number}"), partition=partition, time_ms=1000 * number)
    core.audience.pin(GLOBAL)
    await wait_all_tasks_blocked()
    return (await core.history.page(PageQuery(chat="global", limit=PARTITIONS))).next


def lose_leader(core: Core, partition: int) -> None:
    """Have the chat be opened as the Tail opens a topic of which one partition has no leader."""
    core.audience.followed[GLOBAL].logs.pop(partition)
    core.audience.followed[GLOBAL].changed()


def find_leader(core: Core, partition: int) -> None:
    core.audience.followed.topic_opened(GLOBAL, core.kafka.topics[GLOBAL].topic_id, {partition: 2}, created=False)


def texts(page: Page) -> list[str]:
    return [json.loads(message)["text"] for message in page.messages]


@pytest.mark.promise("p-page-links", "p-page-end")
@pytest.mark.parametrize("late", range(PARTITIONS))
@pytest.mark.parametrize("backward", [False, True])
async def test_pages_go_on_in_it_where_they_were(autojump_clock, late: int, *, backward: bool) -> None:
    number = 0 if backward else 1
    async with open_core() as core:
        cursor = await a_chat(core)
        lose_leader(core, late)
        page = await core.history.page(PageQuery(chat="global", cursor=parse(cursor), backward=backward))
        assert sorted(texts(page)) == [f"{partition} {number}" for partition in range(PARTITIONS) if partition != late]
        assert page.end
        find_leader(core, late)
        on = page.prev if backward else page.next
        assert texts(await core.history.page(PageQuery(chat="global", cursor=parse(on), backward=backward))) == [f"{late} {number}"]
        again = page.next if backward else page.prev
        there_and_back = await core.history.page(PageQuery(chat="global", cursor=parse(again), backward=not backward))
        assert sorted(texts(there_and_back)) == [f"{partition} {1 - number}" for partition in range(PARTITIONS)]


@pytest.mark.promise("p-page-links", "p-page-end")
@pytest.mark.parametrize("late", range(PARTITIONS))
@pytest.mark.parametrize("backward", [False, True])
async def test_pages_that_began_without_it_come_to_it_once_it_has_one(autojump_clock, late: int, *, backward: bool) -> None:
    async with open_core() as core:
        await a_chat(core)
        lose_leader(core, late)
        page = await core.history.page(PageQuery(chat="global", backward=backward))
        assert len(page.messages) == 2 * (PARTITIONS - 1)
        find_leader(core, late)
        on = PageQuery(
            chat="global",
            cursor=parse(page.prev if backward else page.next),
            backward=backward,
        )
        assert texts(await core.history.page(on)) == [f"{late} 0", f"{late} 1"]


@pytest.mark.promise("p-page-stays")
async def test_a_page_that_lacks_it_is_not_said_to_stay_the_same(autojump_clock) -> None:
    async with open_core() as core:
        cursor = await a_chat(core)
        for partition in range(PARTITIONS):
            core.kafka.produce(GLOBAL, value("last"), partition=partition, time_ms=2000)
        asked = PageQuery(chat="global", cursor=parse(cursor), limit=2)
        assert (await core.history.page(asked)).closed
        lose_leader(core, 2)
        assert not (await core.history.page(asked)).closed
