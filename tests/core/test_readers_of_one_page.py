"""Who reads a page together with others gets what it asked for, or is told that this is lost, whatever the others get."""

from __future__ import annotations

import pytest
import trio

from kafka_chat.delivery.log.partition_log import PAGE_OFFSETS, PartitionLog
from kafka_chat.delivery.records.batch import Batch
from kafka_chat.errors import PositionLost
from tests.support.fake_topics import value
from tests.support.fakes import Core, open_core

GLOBAL = "kafka.chat.global"
COUNT = 200


def produced(core: Core) -> PartitionLog:
    """Return a log none of whose records are in memory."""
    assert COUNT <= PAGE_OFFSETS, "they are on one page"
    core.kafka.create(GLOBAL)
    core.kafka.produce(GLOBAL, *(value(f"m{number}") for number in range(COUNT)))
    return PartitionLog(core.kafka.key(GLOBAL), COUNT, core.memory)


async def read_together(core: Core, log: PartitionLog, positions: list[int]) -> dict[int, Batch | None]:
    """Return what each of them gets; None where it is lost."""
    found: dict[int, Batch | None] = {}

    async def fetch(position: int) -> None:
        try:
            found[position] = await core.reads.fetch(log, position)
        except PositionLost:
            found[position] = None

    async with trio.open_nursery() as nursery:
        for position in positions:
            nursery.start_soon(fetch, position)
    return found


async def test_what_is_left_is_read_though_the_beginning_of_its_page_is_lost(autojump_clock):
    async with open_core() as core:
        log = produced(core)
        core.kafka.trim(GLOBAL, 100)
        found = await read_together(core, log, [5, 150])
        assert found[5] is None
        assert found[150] is not None
        assert found[150].first <= 150 < found[150].next


@pytest.mark.parametrize("page_bytes", [500, 2000])
async def test_a_page_that_ends_too_early_is_followed_by_another(autojump_clock, page_bytes: int):
    async with open_core() as core:
        log = produced(core)
        core.kafka.page_bytes = page_bytes
        for position, page in (await read_together(core, log, [0, 3, 90, 199])).items():
            assert page is not None
            assert page.first <= position < page.next
