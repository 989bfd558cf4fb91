"""A batch gives the same frames, however it is read."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from kafka_chat.chat.message import Reject
from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.delivery.log.memory import Memory
from kafka_chat.delivery.log.partition_log import NotInMemory, PartitionLog
from kafka_chat.delivery.records.batch import TIMES_A_READ, Batch, Chunk
from kafka_chat.delivery.records.formats import PLAIN, Bound, Format, View
from kafka_chat.delivery.records.frames import text_header, text_payloads
from kafka_chat.delivery.records.record import Record
from tests.support.fake_topics import value

KEY = PartitionKey("kafka.chat.x", "id", 0)


def batch_of(first: int, *records: Record, next: int | None = None) -> Batch:
    end = next if next is not None else records[-1].offset + 1
    return Batch.decode(records, KEY, first=first, next=end, chat="x", max_bytes=100_000)


@given(st.integers(0, 70_000) | st.sampled_from([125, 126, 65_535, 65_536]))
def test_a_frame_read_by_another_implementation_is_our_payload(size):
    payload = b"x" * size
    protocol = FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(text_header(size) + payload)
    frames = list(protocol.received_frames())
    assert {frame.opcode for frame in frames} == {Opcode.TEXT}
    assert "".join(frame.payload for frame in frames).encode() == payload
    assert frames[-1].message_finished
    assert text_payloads(text_header(size) + payload) == [payload]


records = st.lists(st.tuples(st.integers(1, 4), st.text(max_size=300), st.booleans()), max_size=60)


@st.composite
def partitions(draw):
    """A partition's records, with holes and rejects, cut into batches."""
    offset, made = 0, []
    for step, text, good in draw(records):
        offset += step
        made.append(Record(offset, value(text) if good else b"no"))
    end = offset + draw(st.integers(1, 3))
    cuts = sorted({0, end, *draw(st.lists(st.integers(0, end), max_size=6))})
    batches = [batch_of(a, *[record for record in made if a <= record.offset < b], next=b) for a, b in itertools.pairwise(cuts)]
    return made, batches, end


def texts(made, position):
    return [json.loads(r.value)["text"] for r in made if r.offset >= position and r.value != b"no"]


@given(partitions(), st.data())
def test_a_log_gives_the_same_messages_from_any_position_in_any_pieces(partition, data):
    made, batches, end = partition
    log = PartitionLog(KEY, 0, Memory(1 << 30))
    for batch in batches:
        log.append(batch)
    position = data.draw(st.integers(0, end))
    expected, got = texts(made, position), []
    while (chunk := log.read(position, data.draw(st.integers(1, 2000)))) is not NotInMemory.AHEAD:
        assert isinstance(chunk, Chunk)
        assert chunk.next > position
        payloads = text_payloads(chunk.data)
        assert len(payloads) == chunk.messages
        got += [json.loads(payload)["text"] for payload in payloads]
        position = chunk.next
    assert (got, position) == (expected, end)


@given(partitions(), st.integers(0, 4000))
def test_what_memory_forgets_is_never_given_wrong_only_asked_for_as_a_page(partition, limit):
    made, batches, end = partition
    memory = Memory(limit)
    log = PartitionLog(KEY, 0, memory)
    for batch in batches:
        log.append(batch)
        assert memory.held_bytes <= limit
    for position in range(end):
        chunk = log.read(position, 1 << 20)
        if isinstance(chunk, Chunk):
            assert [json.loads(p)["text"] for p in text_payloads(chunk.data)] == texts(made, position)
        else:
            assert chunk is NotInMemory.PAGE
            first, until = log.page_range(position)
            log.keep_page(batch_of(first, *[r for r in made if first <= r.offset < until], next=until))
    log.close()
    assert memory.held_bytes == 0


def test_appending_what_is_there_already_doubles_nothing():
    log = PartitionLog(KEY, 0, Memory(1 << 20))
    made = [Record(n, value(f"m{n}")) for n in range(6)]
    log.append(batch_of(0, *made[:4]))
    log.append(batch_of(2, *made[2:4]))
    log.append(batch_of(2, *made[2:6]))
    chunk = log.read(0, 1 << 20)
    assert isinstance(chunk, Chunk)
    assert [json.loads(p)["text"] for p in text_payloads(chunk.data)] == [f"m{n}" for n in range(6)]


def test_what_did_not_fit_is_not_passed_over_for_a_smaller_message_behind_it():
    log = PartitionLog(KEY, 0, Memory(1 << 20))
    log.append(batch_of(0, Record(0, value("a")), Record(1, value("b" * 5000))))
    log.append(batch_of(2, Record(2, value("c"))))
    log.append(batch_of(3, Record(3, value("d"))))
    found = log.read(0, 1000)
    assert isinstance(found, Chunk)
    assert (found.messages, found.next) == (1, 1)
    found = log.read(2, 1000)
    assert isinstance(found, Chunk)
    assert (found.messages, found.next) == (2, 4)


def test_nothing_is_joined_over_a_hole():
    log = PartitionLog(KEY, 0, Memory(1 << 20))
    log.append(batch_of(0, Record(0, value("a")), next=1))
    log.append(batch_of(5, Record(5, value("b")), next=6))
    assert log.read(0, 1 << 20) is NotInMemory.PAGE
    assert log.read(3, 1 << 20) is NotInMemory.PAGE
    assert isinstance(log.read(5, 1 << 20), Chunk)


def test_a_frame_that_grew_past_the_limit_is_a_reject():
    grown = json.dumps({"sender": "a", "text": "x" * 90}).encode()
    batch = Batch.decode([Record(0, grown)], KEY, first=0, next=1, chat="y" * 200, max_bytes=150)
    assert [(r.offset, r.reason) for r in batch.rejected] == [(0, Reject.TOO_LARGE)]
    assert batch.messages == 0


def test_messages_are_looked_at_for_their_time_so_many_at_a_time_and_none_is_left_out():
    for count in (TIMES_A_READ - 1, TIMES_A_READ, TIMES_A_READ + 1):
        records = [Record(n, value(f"m{n}"), 5 if n % 2 else 50) for n in range(count)]
        batch = batch_of(0, *records)
        position, messages = 0, 0
        while position < count:
            chunk = batch.read(position, 1 << 20, PLAIN, bound=Bound(count, 10))
            assert chunk.next > position
            position, messages = chunk.next, messages + chunk.messages
        assert messages == count // 2


@given(st.lists(st.integers(-3, 12), max_size=20), st.integers(0, 6))
@pytest.mark.promise("p-record-rejected")
def test_of_offsets_that_do_not_ascend_the_ascending_ones_are_kept_and_each_reader_sees_those(offsets, first):
    end = max([first, *(offset + 1 for offset in offsets)])
    batch = batch_of(first, *[Record(offset, value(str(number))) for number, offset in enumerate(offsets)], next=end)
    kept: dict[int, str] = {}
    for number, offset in enumerate(offsets):
        if offset > max(kept, default=first - 1):
            kept[offset] = str(number)
    assert [reject.reason for reject in batch.rejected] == [Reject.OUT_OF_ORDER] * (len(offsets) - len(kept))
    assert [json.loads(payload)["text"] for payload in text_payloads(batch.read(first, 1 << 20).data)] == [*kept.values()]
    marks = batch.marks(PLAIN, first=first, end=end)
    assert [mark.offset for mark in marks] == [*kept]
    assert [json.loads(batch.history_message(View(format=Format.V1), mark.offset).payload)["text"] for mark in marks] == [*kept.values()]
