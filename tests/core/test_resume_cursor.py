"""A cursor is read back as it was written, and what is none is refused."""

from __future__ import annotations

import re
import sys
import tracemalloc
from base64 import urlsafe_b64decode
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.chat import resume_cursor as cursor_module
from kafka_chat.chat.resume_cursor import (
    PARTITIONS,
    TEXT_LENGTH,
    CursorParser,
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
from kafka_chat.loop_sharing import Turn
from tests.support.loop_steps import loop_steps

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


# A cursor is a stranger's: its cost is linear in its length, and bounded.


def naive(text: str) -> tuple[bytes | None, int, bool, dict[bytes, tuple[bytes | None, dict[int, int], set[int], bool]]] | None:
    """What docs/protocol.md says that a cursor says, the long way; None where it is malformed."""
    cluster, subscriptions, whole = None, 0, False
    entries: dict[bytes, tuple[bytes | None, dict[int, int], set[int], bool]] = {}
    for part in text.split("."):
        if not re.fullmatch(r"[A-Za-z0-9_-]+", part) or len(part) % 4 == 1:
            return None
        data = list(urlsafe_b64decode(part + "=" * (-len(part) % 4)))

        def take(size: int, data: list[int] = data) -> bytes:
            if len(data) < size:
                raise EOFError
            taken, data[:] = bytes(data[:size]), data[size:]
            return taken

        def varint(take: Callable[[int], bytes] = take) -> int:
            number = shift = 0
            while True:
                byte = take(1)[0]
                number, shift = number | (byte & 0x7F) << shift, shift + 7
                if byte < 0x80:
                    if number >= 1 << 63:
                        raise EOFError
                    return number
                if shift == 70:
                    raise EOFError

        try:
            kind = take(1)[0]
            if kind == 1:
                said = take(4)
                cluster = said if any(said) else cluster
                subscriptions, whole = max(subscriptions, varint()), True
                while data:
                    mark, identity, count = take(4), take(16), varint()
                    if count > 1 << 20 or (count and not any(identity)):
                        return None
                    numbers = [varint() for _ in range(count)]
                    known = {n: number - 1 for n, number in enumerate(numbers) if number}
                    entries[mark] = (
                        identity if any(identity) else None,
                        known,
                        {n for n, number in enumerate(numbers) if not number},
                        True,
                    )
            elif kind == 2:
                mark, identity, partition, offset = take(4), take(16), varint(), varint()
                if data or not any(identity) or partition >= 1 << 20:
                    return None
                before = entries.get(mark)
                if before is None or before[0] != identity:
                    before = (identity, {}, set(), before is not None)
                entries[mark] = (identity, before[1] | {partition: offset + 1}, before[2] - {partition}, before[3])
            else:
                return None
        except EOFError:
            return None
    return cluster, subscriptions, whole, entries


MARKS = st.sampled_from([b"abcd", b"wxyz"])
IDENTITIES = st.sampled_from([bytes(16), b"i" * 16, b"j" * 16])
NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, (1 << 63) - 1), st.sampled_from([(1 << 63) - 1, 1 << 63, 1 << 70]))


def leb128(number: int, more: int = 0) -> bytes:
    """A number; `more`: with so many bytes that say nothing, as no writer of ours has them."""
    pieces = [number & 0x7F]
    while number := number >> 7:
        pieces.append(number & 0x7F)
    pieces += [0] * more
    return bytes([piece | 0x80 for piece in pieces[:-1]] + pieces[-1:])


VARINTS = st.builds(leb128, NUMBERS, st.sampled_from([0, 0, 0, 0, 1, 8]))
ENTRIES = st.builds(
    lambda mark, identity, numbers, more: mark + identity + leb128(len(numbers) + more) + b"".join(numbers),
    MARKS, IDENTITIES, st.lists(VARINTS, max_size=4), st.sampled_from([0, 0, 0, 1]),
)  # fmt: skip
PARTS = st.one_of(
    st.builds(
        lambda cluster, known, entries: b"\1" + cluster + known + b"".join(entries),
        st.sampled_from([bytes(4), b"here", b"else"]), VARINTS, st.lists(ENTRIES, max_size=3),
    ),
    st.builds(
        lambda mark, identity, partition, offset: b"\2" + mark + identity + partition + offset,
        MARKS, IDENTITIES, st.one_of(st.integers(0, 5).map(leb128), VARINTS), VARINTS,
    ),
    st.binary(max_size=30),
)  # fmt: skip


@given(st.lists(PARTS, min_size=1, max_size=6), st.one_of(st.none(), st.integers(0, 400)))
def test_a_cursor_says_what_the_protocol_says_that_it_says(parts: list[bytes], cut: int | None) -> None:
    text = ".".join(map(text_of, parts))
    text = text if cut is None else text[:cut]
    expected = naive(text)
    if expected is None:
        with pytest.raises(RequestError, match="cursor"):
            parse(text)
        return
    cursor = parse(text)
    assert (cursor.cluster, cursor.subscriptions, cursor.whole) == expected[:3]
    assert cursor.entries.keys() == expected[3].keys()
    for mark, (identity, offsets, unknown, whole) in expected[3].items():
        entry = cursor.entries[mark]
        assert (entry.identity, entry.offsets, set(entry.unknown), entry.whole) == (identity, offsets, unknown, whole)
        for partition in {*range(6), *offsets}:
            assert entry.next(partition) == offsets.get(partition)
            assert entry.is_unknown(partition) == (partition in unknown)


def lines_of(text: str) -> int:
    """Parse a text, and return how many lines of the parser ran."""
    ran = 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        nonlocal ran
        ran += event == "line"
        return trace if frame.f_code.co_filename == cursor_module.__file__ else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(RequestError):
            parse(text)
    finally:
        sys.settrace(before)
    return ran


SIZE = 16 * 1024
SHORT = text_of(head_of_cursor(None, 0) + topic_entry(TOPIC, TOPIC_ID, [5]))
LARGE: dict[str, Callable[[int], str]] = {
    "one topic with short offsets": lambda size: text_of(head_of_cursor(None, 0) + topic_entry(TOPIC, TOPIC_ID, [5] * (size * 3 // 4))),
    "one topic with long offsets": lambda size: text_of(head_of_cursor(None, 0) + topic_entry(TOPIC, TOPIC_ID, [1 << 62] * (size // 12))),
    "topics": lambda size: text_of(head_of_cursor(None, 0) + b"".join(topic_entry(f"t{n}", TOPIC_ID, [5]) for n in range(size // 30))),
    "ids in one topic": lambda size: ".".join(MessageIds(TOPIC, TOPIC_ID, n).of(9).decode() for n in range(size // 33)),
    "ids of topics": lambda size: ".".join(MessageIds(f"t{n}", TOPIC_ID, 0).of(9).decode() for n in range(size // 33)),
    "the same cursor again and again": lambda size: ".".join([SHORT] * (size // 38)),
    "dots": lambda size: "." * size,
    "a number without end": lambda size: "AQ" + "_" * size,
}


@pytest.mark.parametrize("kind", LARGE)
def test_the_steps_of_parsing_are_linear_in_the_length_of_the_text(kind: str) -> None:
    short, long = (LARGE[kind](size) for size in (SIZE // 4, SIZE))
    assert lines_of(long) <= 8 * len(long) + 200
    assert lines_of(long) <= 5 * lines_of(short) + 200


@pytest.mark.parametrize("kind", LARGE)
async def test_no_step_of_parsing_the_largest_text_holds_the_loop(kind: str) -> None:
    text = LARGE[kind](PARTITIONS if kind == "one topic with short offsets" else TEXT_LENGTH // 2)
    with loop_steps() as steps, suppress(RequestError):
        await trio.lowlevel.checkpoint()
        turn = Turn()
        for _ in CursorParser(text):
            await turn.share()
    await trio.lowlevel.checkpoint()
    steps.check()


def test_a_cursor_that_names_too_many_partitions_is_refused_by_that_number() -> None:
    assert parse(text_of(head_of_cursor(None, 0) + topic_entry(TOPIC, TOPIC_ID, [5] * PARTITIONS))).entry(TOPIC) is not None
    for named in (
        head_of_cursor(None, 0) + topic_entry(TOPIC, TOPIC_ID, [5] * (PARTITIONS + 1)),
        head_of_cursor(None, 0) + topic_entry(TOPIC, TOPIC_ID, [5]) * (PARTITIONS + 1),
    ):
        with pytest.raises(RequestError, match="cursor names too many partitions; at most 32768 are allowed") as caught:
            parse(text_of(named))
        assert caught.value.field == "cursor"
    with pytest.raises(RequestError, match="at most 1048576 are allowed"):
        parse("A" * (TEXT_LENGTH + 1))


def test_a_cursor_of_64_kib_costs_less_than_half_a_megabyte() -> None:
    for text in (LARGE["one topic with short offsets"](43_000), LARGE["ids in one topic"](65_000)):
        tracemalloc.start()
        try:
            cursor = parse(text)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert cursor.entries
        assert held < 512 * 1024
