"""Memory keeps as much as it may, and drops no more than it must: the oldest first, the most recently used last."""

from __future__ import annotations

import gc
import weakref

from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.delivery.log.memory import Memory
from kafka_chat.delivery.log.partition_log import NotInMemory, PartitionLog
from kafka_chat.delivery.records.batch import Batch, Chunk
from kafka_chat.delivery.records.formats import Format, View
from kafka_chat.delivery.records.record import Record
from tests.support.fake_topics import value

KEY = PartitionKey("kafka.chat.x", "id", 0)


def batch_of(first: int, end: int, *, epoch: int = -1) -> Batch:
    records = [Record(offset, value(f"message {offset:06}"), epoch=epoch) for offset in range(first, end)]
    return Batch.decode(records, KEY, first=first, next=end, chat="x", max_bytes=100_000)


SIZE = batch_of(0, 10).size


def has(log: PartitionLog, offset: int) -> bool:
    return isinstance(log.read(offset, 1), Chunk)


def log_with_head(memory: Memory, head: int) -> PartitionLog:
    """A log whose head is there, and nothing before it: what was read of it before is in pages."""
    log = PartitionLog(KEY, head, memory)
    log.append(batch_of(head, head + 1))
    return log


def test_no_more_is_forgotten_than_has_to_be_and_the_oldest_first():
    memory = Memory(3 * SIZE)
    log = PartitionLog(KEY, 0, memory)
    for first in range(0, 50, 10):
        log.append(batch_of(first, first + 10))
    assert memory.held_bytes == memory.used_bytes == 3 * SIZE
    assert [has(log, offset) for offset in range(5, 50, 10)] == [False, False, True, True, True]
    memory.owe(1)
    assert (memory.held_bytes, memory.used_bytes) == (2 * SIZE, 2 * SIZE + 1)
    assert [has(log, offset) for offset in range(25, 50, 10)] == [False, True, True]
    memory.owe(-1)
    assert memory.used_bytes == 2 * SIZE


def test_what_a_socket_is_owed_counts_for_as_long_as_it_is():
    memory = Memory(2 * SIZE)
    log = PartitionLog(KEY, 0, memory)
    with memory.owing(SIZE):
        log.append(batch_of(0, 10))
        log.append(batch_of(10, 20))
        assert (memory.owed_bytes, memory.held_bytes) == (SIZE, SIZE)
    assert (memory.owed_bytes, memory.held_bytes) == (0, SIZE)


def test_what_is_forgotten_counts_until_its_last_reader_drops_it():
    memory = Memory(2 * SIZE)
    log = PartitionLog(KEY, 0, memory)
    log.append(batch_of(0, 10))
    in_hand = log.batch_at(0)
    log.append(batch_of(10, 20))
    log.append(batch_of(20, 30))
    # There is room for one more only: what the reader has in hand is in memory, too.
    assert (memory.lent_bytes, memory.held_bytes) == (SIZE, SIZE)
    assert [has(log, offset) for offset in (5, 15, 25)] == [False, False, True]
    del in_hand
    gc.collect()
    assert (memory.lent_bytes, memory.used_bytes) == (0, SIZE)


def test_a_form_that_is_made_later_counts():
    memory = Memory(1 << 20)
    log = PartitionLog(KEY, 0, memory)
    log.append(batch_of(0, 10))
    batch = log.batch_at(0)
    assert batch is not None
    log.render(batch, View(format=Format.V1))
    assert memory.held_bytes == batch.size > SIZE
    memory.release(batch)
    memory.recount(batch)
    memory.release(batch)
    assert memory.held_bytes == 0


def test_a_form_that_is_made_later_has_the_oldest_go():
    memory = Memory(3 * SIZE)
    log = PartitionLog(KEY, 0, memory)
    for first in (0, 10, 20):
        log.append(batch_of(first, first + 10))
    latest = log.batch_at(25)
    assert latest is not None
    log.render(latest, View(format=Format.V1))
    assert [has(log, offset) for offset in (5, 15, 25)] == [False, False, True]
    assert memory.held_bytes == latest.size


def test_a_page_takes_the_place_of_those_that_it_covers_and_of_no_other():
    memory = Memory(1 << 20)
    log = log_with_head(memory, 1000)
    head_bytes = memory.held_bytes
    for first, end in [(90, 110), (100, 110), (110, 120), (119, 125)]:
        log.keep_page(batch_of(first, end))
    larger = batch_of(100, 120)
    log.keep_page(larger)
    assert memory.held_bytes == head_bytes + larger.size + batch_of(90, 110).size + batch_of(119, 125).size
    assert [offset for offset in range(80, 130) if has(log, offset)] == [*range(90, 125)]
    assert log.batch_at(105) is larger
    log.close()
    assert memory.held_bytes == 0


def test_a_page_that_was_read_stays_longer_than_one_that_was_not():
    memory = Memory(3 * SIZE)
    log = log_with_head(memory, 1000)
    log.keep_page(batch_of(10, 20))
    log.keep_page(batch_of(30, 40))
    assert has(log, 15)
    assert has(log, 1000)
    log.keep_page(batch_of(50, 60))
    log.keep_page(batch_of(70, 80))
    assert [has(log, offset) for offset in (15, 35, 55, 75)] == [True, False, True, True]
    assert log.batch_at(35) is None


def test_a_page_that_is_forgotten_is_asked_for_again_and_the_others_are_there():
    memory = Memory(1 << 20)
    log = log_with_head(memory, 1000)
    for first in (10, 20, 30):
        log.keep_page(batch_of(first, first + 10))
    memory.limit_bytes = memory.used_bytes - SIZE  # the head is the oldest, and the first page the next one
    memory.owe(0)
    assert log.read(1000, 1) is NotInMemory.PAGE
    assert log.read(15, 1) is NotInMemory.PAGE
    assert [has(log, offset) for offset in (15, 25, 35)] == [False, True, True]
    log.keep_page(batch_of(10, 20))
    assert has(log, 15)


def test_a_log_that_was_closed_meanwhile_keeps_no_page():
    memory = Memory(1 << 20)
    log = log_with_head(memory, 1000)
    log.keep_page(batch_of(10, 20))
    log.close()
    log.keep_page(batch_of(30, 40))
    assert memory.held_bytes == 0
    assert not has(log, 15)
    assert not has(log, 35)


def test_pages_tell_the_leader_epochs_of_what_is_in_them():
    log = log_with_head(Memory(1 << 20), 1000)
    log.keep_page(batch_of(10, 20, epoch=3))
    assert log.epochs.latest == 3
    assert log.epochs.before(15) == 3


def test_nothing_is_left_of_a_page_that_another_one_covers():
    log = log_with_head(Memory(1 << 20), 1000)
    log.keep_page(batch_of(100, 110))
    inside = weakref.ref(log.batch_at(105))
    log.keep_page(batch_of(100, 120))
    gc.collect()
    assert inside() is None
