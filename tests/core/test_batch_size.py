"""The size that a batch reports is the memory that Python uses for it, whatever is in its records and however it is read."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable, Sequence

import pytest

from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.delivery.log.memory import Memory
from kafka_chat.delivery.log.partition_log import NotInMemory, PartitionLog
from kafka_chat.delivery.records.batch import Batch
from kafka_chat.delivery.records.formats import Format, View
from kafka_chat.delivery.records.record import Record

KEY = PartitionKey("kafka.chat.x", "id", 0)
HELD_BYTES = 1 << 20  # by each way, so that what is there once weighs nothing
SLACK = 1.15  # of what is held over what is said; malloc's own rounding is the rest up to 1.3 of docs/operations.md

V1, EVENTS = View(format=Format.V1), View(format=Format.EVENTS)


def value(offset: int, text: str, sender: str = "") -> bytes:
    return json.dumps({"sender": sender or f"sender{offset % 50}", "text": text, "tag": None}).encode()


WAYS: dict[str, tuple[int, Callable[[int], Record], Sequence[View]]] = {
    "a small message by itself": (1, lambda o: Record(o, value(o, "x" * 50), o), ()),
    "a small message by itself, in every form": (1, lambda o: Record(o, value(o, "x" * 50), o, b"key"), (V1, EVENTS)),
    "many small messages": (500, lambda o: Record(o, value(o, "x" * 50), o), ()),
    "many small messages in every form": (500, lambda o: Record(o, value(o, "x" * 50), o, b"key%d" % o), (V1, EVENTS)),
    "keys": (60, lambda o: Record(o, value(o, "x"), o, b"%08d" % o * 512), ()),
    "headers": (200, lambda o: Record(o, value(o, "x"), o, None, [("trace", b"%08d" % o * 4), ("span", b"x" * 20)]), ()),
    "headers of long names": (50, lambda o: Record(o, value(o, "x"), o, None, [(f"{o:08d}" * 500, None)]), ()),
    "many headers": (1, lambda o: Record(o, value(o, "x"), o, None, [(f"{n}", b"") for n in range(500)]), ()),
    "what is rejected": (20, lambda o: Record(o, None, o), ()),
    "what does not fit": (1, lambda o: Record(o, value(o, "x" * 99_900), o), (V1, EVENTS)),
    "senders and tags for filters": (50, lambda o: Record(o, value(o, "x", f"{o:08d}" * 500), o), (View(senders=frozenset(("a",))),)),
    "many filters": (100, lambda o: Record(o, value(o, "x"), o), [View(senders=frozenset((f"{n}" * 1_000,))) for n in range(12)]),
    "many filters of v1": (100, lambda o: Record(o, value(o, "x"), o), [View(format=Format.V1, tags=frozenset(str(n))) for n in range(12)]),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.promise("p-memory")
def test_memory_counts_what_is_held_in_this_way(way: str):
    messages, record, views = WAYS[way]
    memory = Memory(1 << 40)
    log = PartitionLog(KEY, 0, memory)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        while memory.held_bytes < HELD_BYTES:
            first = log.head
            records = [record(offset) for offset in range(first, first + messages)]
            log.append(Batch.decode(records, KEY, first=first, next=first + messages, chat="x", max_bytes=100_000))
            for view in views:
                assert not isinstance(log.read(first, 1 << 40, view), NotInMemory)
        del records
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held <= SLACK * memory.held_bytes, f"{held:,} bytes are held, {memory.held_bytes:,} are counted"
    assert memory.held_bytes <= 3 * held, f"{held:,} bytes are held, {memory.held_bytes:,} are counted"


def small(first: int) -> Batch:
    return Batch.decode([Record(first, value(first, "x" * 1_000))], KEY, first=first, next=first + 1, chat="x", max_bytes=100_000)


def test_a_batch_that_memory_forgets_counts_for_as_long_as_a_reader_has_it():
    size = small(0).size
    memory = Memory(3 * size)
    log = PartitionLog(KEY, 0, memory)
    log.append(small(0))
    read = log.batch_at(0)
    for first in range(1, 5):
        log.append(small(first))
        assert memory.used_bytes <= 3 * size
    assert read is not None
    assert log.batch_at(1) is None
    assert memory.lent_bytes == size
    assert memory.used_bytes == 3 * size
    del read
    assert memory.lent_bytes == 0
    assert memory.used_bytes == 2 * size


def test_what_was_rejected_is_forgotten_once_it_is_told():
    batch = Batch.decode([Record(n, None) for n in range(1_000)], KEY, first=0, next=1_000, chat="x", max_bytes=100_000)
    before = batch.size
    assert len(batch.rejected) == 1_000
    batch.forget_rejected()
    assert batch.rejected == ()
    assert batch.size < before / 100
