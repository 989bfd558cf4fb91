"""A cursor is read back as it was written, and what is none is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.chat.cursor import (
    MessageIds,
    absent_entry,
    cluster_mark,
    head_of_cursor,
    identity_of,
    joined,
    parse,
    text_of,
    topic_entry,
)
from kafka_chat.errors import RequestError

TOPIC, TOPIC_ID = "kafka.chat.room1", "Tq7hxZ0bQnCkzN8r0gHbDw"
OFFSETS = st.one_of(st.none(), st.integers(0, (1 << 62)))


@given(st.integers(0, 1 << 60), st.lists(OFFSETS, min_size=1, max_size=20))
def test_a_cursor_is_read_back_as_it_was_written(subscriptions: int, positions: list[int | None]) -> None:
    cursor = parse(
        text_of(head_of_cursor(cluster_mark("abc"), subscriptions) + topic_entry(TOPIC, TOPIC_ID, positions) + absent_entry("x"))
    )
    entry, absent = cursor.entry(TOPIC), cursor.entry("x")
    assert cursor.cluster == cluster_mark("abc")
    assert cursor.subscriptions == subscriptions
    assert entry is not None
    assert absent is not None
    assert entry.identity == identity_of(TOPIC_ID)
    assert dict(entry.offsets) == {n: position for n, position in enumerate(positions) if position is not None}
    assert entry.unknown == {n for n, position in enumerate(positions) if position is None}
    assert entry.whole
    assert absent.identity is None
    assert cursor.entry("y") is None


@given(st.integers(0, 5000), st.integers(0, 1 << 60))
def test_the_id_of_a_message_moves_its_partition_behind_it(partition: int, offset: int) -> None:
    name = MessageIds(TOPIC, TOPIC_ID, partition).of(offset).decode()
    alone = parse(name).entry(TOPIC)
    assert alone is not None
    assert dict(alone.offsets) == {partition: offset + 1}
    assert not alone.whole
    base = text_of(head_of_cursor(None, 3) + topic_entry(TOPIC, TOPIC_ID, [7, None]))
    moved = parse(joined([base, name])).entry(TOPIC)
    assert moved is not None
    assert dict(moved.offsets) == {0: 7, partition: offset + 1}
    assert moved.unknown == {1} - {partition}
    assert moved.whole


def test_the_id_of_a_topic_made_anew_takes_the_place_of_the_old_one() -> None:
    base = text_of(head_of_cursor(None, 0) + topic_entry(TOPIC, TOPIC_ID, [7, 9]))
    entry = parse(f"{base}.{MessageIds(TOPIC, 'embedded', 1).of(4).decode()}").entry(TOPIC)
    assert entry is not None
    assert entry.identity == identity_of("embedded")
    assert dict(entry.offsets) == {1: 5}
    assert entry.whole  # so its other partitions begin at 0


def test_an_identity_is_the_same_however_its_base64_is_written() -> None:
    assert identity_of("fwlmCWfYRLKRTC/YAUXS+Q") == identity_of("fwlmCWfYRLKRTC_YAUXS-Q") != identity_of("fwlmCWfYRLKRTC_YAUXS_Q")
    assert identity_of("AAAAAAAAAAAAAAAAAAAAAQ") == bytes(15) + b"\x01"


def test_a_partition_costs_at_most_forty_bytes() -> None:
    one = text_of(head_of_cursor(cluster_mark("abc"), 10**6) + topic_entry(TOPIC, TOPIC_ID, [10**6]))
    ten = text_of(head_of_cursor(cluster_mark("abc"), 10**6) + topic_entry(TOPIC, TOPIC_ID, [10**12] * 10))
    assert len(one) <= 48  # with its head
    assert len(ten) <= 10 * 40
    assert len(MessageIds(TOPIC, TOPIC_ID, 30).of(10**9)) <= 40


@given(st.text(alphabet="AQEC-_.az09 é", max_size=60))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    with suppress(RequestError):
        parse(text)


@pytest.mark.parametrize("text", ["", ".", "A", "AQ", "AQAA=", "Aw", "AQAAAAAA.", "AgAA", "x y", "AQAAAAD_____________AA"])
def test_malformed_cursors_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="cursor"):
        parse(text)
