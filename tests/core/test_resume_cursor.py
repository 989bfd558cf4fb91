"""A cursor is read back as it was written, and anything else is refused."""

from __future__ import annotations

import re
import sys
import tracemalloc
from base64 import urlsafe_b64decode
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any
from zlib import crc32

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.chat import cursor_bytes
from kafka_chat.chat import resume_cursor as cursor_module
from kafka_chat.chat.cursor_bytes import encoded
from kafka_chat.chat.resume_cursor import (
    NO_EPOCH,
    NOT_KNOWN,
    OF_A_PAGE,
    PARTITIONS,
    TEXT_LENGTH,
    CursorParser,
    MessageIds,
    ResumeCursor,
    absent_entry,
    cluster_mark,
    entry_again,
    head_of_cursor,
    identity_of,
    joined,
    parse,
    text_of,
    topic_entry,
    topic_mark,
)
from kafka_chat.delivery.session.long_cursor import parse_in_turns
from kafka_chat.errors import RequestError
from kafka_chat.loop_sharing import Turn
from tests.support.cursor_bytes import first_cursor, first_id
from tests.support.loop_steps import loop_steps

TOPIC, TOPIC_ID = "kafka.chat.room1", "Tq7hxZ0bQnCkzN8r0gHbDw"
OFFSETS = st.one_of(st.none(), st.integers(0, (1 << 62)))


@given(st.integers(-2, 1 << 60), st.booleans(), st.lists(st.tuples(OFFSETS, st.integers(-1, (1 << 31) - 2)), min_size=1, max_size=20))
def test_a_cursor_is_read_back_as_it_was_written(subscriptions: int, complete: bool, places: list[tuple[int | None, int]]) -> None:  # noqa: FBT001
    positions, epochs = [position for position, _ in places], [epoch for _, epoch in places]
    head = head_of_cursor(cluster_mark("abc"), subscriptions, complete=complete)
    cursor = parse(text_of(head + topic_entry(TOPIC, TOPIC_ID, positions, epochs) + absent_entry("x")))
    again = parse(text_of(head + entry_again(TOPIC, cursor.entries[topic_mark(TOPIC)]) + absent_entry("x")))
    assert again == cursor
    assert cursor.complete == complete
    entry, absent = cursor.entry(TOPIC), cursor.entry("x")
    assert cursor.cluster == cluster_mark("abc")
    assert cursor.subscriptions == subscriptions
    assert entry is not None
    assert absent is not None
    assert entry.identity == identity_of(TOPIC_ID)
    assert [entry.epoch(n) for n, at in enumerate(positions) if at is not None] == [e for at, e in places if at is not None]
    assert dict(entry.offsets) == {n: position for n, position in enumerate(positions) if position is not None}
    assert entry.unknown == {n for n, position in enumerate(positions) if position is None}
    assert entry.whole
    assert absent.identity is None
    assert cursor.entry("y") is None


@given(st.integers(0, 5000), st.integers(0, 1 << 60), st.integers(-1, (1 << 31) - 2))
@pytest.mark.promise("p-cursor-of-ids")
def test_the_id_of_a_message_moves_its_partition_behind_it(partition: int, offset: int, epoch: int) -> None:
    name = MessageIds(TOPIC, TOPIC_ID, partition).of(offset, epoch).decode()
    alone = parse(name).entry(TOPIC)
    assert alone is not None
    assert alone.epoch(partition) == epoch
    assert name[:28] == MessageIds(TOPIC, TOPIC_ID, 0).of(0).decode()[:28]  # clients tell topics apart by these
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
    assert identity_of("fwl/+WfYRLKRTC/YAUXS+Q") == identity_of("fwl_-WfYRLKRTC_YAUXS-Q") != identity_of("fwl_AWfYRLKRTC_YAUXS-Q")
    assert identity_of("AAAAAQAAAAAAAAAAAAAAAA") == b"\0\0\0\1"


@pytest.mark.promise("p-cursor-size")
def test_a_partition_costs_at_most_forty_bytes() -> None:
    one = text_of(head_of_cursor(cluster_mark("abc"), 10**6) + topic_entry(TOPIC, TOPIC_ID, [10**6], [100]))
    ten = text_of(head_of_cursor(cluster_mark("abc"), 10**6) + topic_entry(TOPIC, TOPIC_ID, [10**12] * 10, [100] * 10))
    assert len(one) <= 48  # with its head
    assert len(ten) <= 10 * 40
    assert len(MessageIds(TOPIC, TOPIC_ID, 30).of(10**9, 100)) <= 40


@given(st.text(alphabet="AQEC-_.az09 é", max_size=60))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    with suppress(RequestError):
        parse(text)


@pytest.mark.parametrize("text", ["", ".", "A", "AQ", "AQAA=", "Aw", "AQAAAAAA.", "AgAA", "x y", "AQAAAAD_____________AA"])
def test_malformed_cursors_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="cursor"):
        parse(text)


# A cursor is a stranger's: its cost is linear in its length, and bounded.

Naive = tuple[bytes | None, int, bool, bool, dict[bytes, tuple[bytes | None, dict[int, tuple[int, int]], set[int], bool]]]


def naive(text: str) -> Naive | None:
    """What docs/protocol.md says that a cursor says, the long way; None where it is malformed."""
    cluster, subscriptions, whole, complete = None, -2, False, False
    entries: dict[bytes, tuple[bytes | None, dict[int, tuple[int, int]], set[int], bool]] = {}
    for part in text.split("."):
        if not re.fullmatch(r"[A-Za-z0-9_-]+", part) or len(part) % 4 == 1:
            return None
        data = list(urlsafe_b64decode(part + "=" * (-len(part) % 4)))

        def take(size: int, data: list[int] = data) -> bytes:
            if len(data) < size:
                raise EOFError
            taken, data[:] = bytes(data[:size]), data[size:]
            return taken

        def varint(take: Callable[[int], bytes] = take, most: int = 1 << 63) -> int:
            number = shift = 0
            while True:
                byte = take(1)[0]
                number, shift = number | (byte & 0x7F) << shift, shift + 7
                if byte < 0x80:
                    if number >= most:
                        raise EOFError
                    return number
                if shift == 70:
                    raise EOFError

        try:
            if data[:1] not in ([1], [2]):
                if len(data) < 3 or (crc32(bytes(data[:-2])) & 0xFFFF).to_bytes(2, "big") != bytes(data[-2:]):
                    return None
                data[-2:] = []
            kind = take(1)[0]
            if kind in (1, 3):
                flags = take(1)[0] if kind == 3 else 0
                said = take(4)
                if any(said) and cluster not in (None, said):
                    entries, subscriptions, complete = {}, -2, False
                cluster = said if any(said) else cluster
                number = varint()
                subscriptions = max(subscriptions, number - 2 if kind == 3 else number or -1)
                whole, complete = True, complete or bool(flags & 1)
                while data:
                    mark = take(4)
                    if kind == 1:
                        identity, count = take(16), varint()
                        if count > 1 << 20 or (count and not any(identity)):
                            return None
                        found = identity[:4] if any(identity) else None
                        places = [(varint(), 0) for _ in range(count)]
                    else:
                        count = varint()
                        if count > 1 << 20:
                            return None
                        found = take(4) if count else None
                        places = [(varint(), varint(most=1 << 31)) for _ in range(count)]
                    known = {n: (number - 1, epoch - 1) for n, (number, epoch) in enumerate(places) if number}
                    entries[mark] = (found, known, {n for n, (number, _) in enumerate(places) if not number}, True)
            elif kind in (2, 4):
                mark, identity, partition, offset = take(4), take(16), varint(), varint()
                epoch = varint(most=1 << 31) if kind == 4 else 0
                if data or not any(identity) or partition >= 1 << 20:
                    return None
                before = entries.get(mark)
                if before is None or before[0] != identity[:4]:
                    before = (identity[:4], {}, set(), before is not None)
                moved = {partition: (offset + 1, epoch - 1)}
                entries[mark] = (identity[:4], before[1] | moved, before[2] - {partition}, before[3])
        except EOFError:
            return None
    return cluster, subscriptions if whole else -1, whole, complete, entries


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
EPOCHS = st.one_of(st.integers(0, 5).map(leb128), st.sampled_from([leb128((1 << 31) - 1), leb128(1 << 31)]), VARINTS)
CLUSTERS = st.sampled_from([bytes(4), b"here", b"else"])
FIRST_ENTRIES = st.builds(
    lambda mark, identity, numbers, more: mark + identity + leb128(len(numbers) + more) + b"".join(numbers),
    MARKS, IDENTITIES, st.lists(VARINTS, max_size=4), st.sampled_from([0, 0, 0, 1]),
)  # fmt: skip
ENTRIES = st.builds(
    lambda mark, identity, places, more: mark
    + leb128(len(places) + more)
    + (identity[:4] if places else b"")
    + b"".join(number + epoch for number, epoch in places),
    MARKS, IDENTITIES, st.lists(st.tuples(VARINTS, EPOCHS), max_size=4), st.sampled_from([0, 0, 0, 1]),
)  # fmt: skip
PARTITION_NUMBERS = st.one_of(st.integers(0, 5).map(leb128), VARINTS)
PARTS = st.one_of(
    st.builds(
        lambda cluster, known, entries: encoded(b"\1" + cluster + known + b"".join(entries)).decode(),
        CLUSTERS, VARINTS, st.lists(FIRST_ENTRIES, max_size=3),
    ),
    st.builds(
        lambda mark, identity, partition, offset: encoded(b"\2" + mark + identity + partition + offset).decode(),
        MARKS, IDENTITIES, PARTITION_NUMBERS, VARINTS,
    ),
    st.builds(
        lambda flags, cluster, known, entries: text_of(b"\3" + flags + cluster + known + b"".join(entries)),
        st.sampled_from([b"\0", b"\1", b"\xfe"]), CLUSTERS, VARINTS, st.lists(ENTRIES, max_size=3),
    ),
    st.builds(
        lambda mark, identity, partition, offset, epoch: text_of(b"\4" + mark + identity + partition + offset + epoch),
        MARKS, IDENTITIES, PARTITION_NUMBERS, VARINTS, EPOCHS,
    ),
    st.builds(lambda kind, rest: text_of(bytes((kind,)) + rest), st.sampled_from([0, 5, 255]), st.binary(max_size=30)),
    st.binary(min_size=1, max_size=30).map(lambda data: encoded(data).decode()),
)  # fmt: skip


@given(st.lists(PARTS, min_size=1, max_size=6), st.one_of(st.none(), st.integers(0, 400)))
@pytest.mark.promise("p-cursor-bytes")
def test_a_cursor_says_what_the_protocol_says_that_it_says(parts: list[str], cut: int | None) -> None:
    text = ".".join(parts)
    text = text if cut is None else text[:cut]
    expected = naive(text)
    if expected is None:
        with pytest.raises(RequestError, match="cursor"):
            parse(text)
        return
    cursor = parse(text)
    assert (cursor.cluster, cursor.subscriptions, cursor.whole, cursor.complete) == expected[:4]
    assert cursor.entries.keys() == expected[4].keys()
    for mark, (identity, places, unknown, whole) in expected[4].items():
        entry = cursor.entries[mark]
        offsets = {partition: offset for partition, (offset, _) in places.items()}
        assert (entry.identity, entry.offsets, set(entry.unknown), entry.whole) == (identity, offsets, unknown, whole)
        for partition in {*range(6), *offsets}:
            assert entry.next(partition) == offsets.get(partition)
            assert entry.is_unknown(partition) == (partition in unknown)
            if partition in places:
                assert entry.epoch(partition) == places[partition][1]


# What was cut or changed on its way is refused, but for one in 65,536; and what later versions say beside is skipped.

WHOLE = joined(
    [
        text_of(head_of_cursor(cluster_mark("abc"), 300, complete=True) + topic_entry(TOPIC, TOPIC_ID, [7, None, 1 << 40], [3, -1, 200])),
        *(MessageIds(TOPIC, TOPIC_ID, number).of(70_000 + number, 4).decode() for number in range(3)),
    ]
)


@pytest.mark.promise("p-cursor-checked")
def test_a_cursor_that_was_cut_anywhere_but_at_a_dot_is_refused() -> None:
    for end in range(len(WHOLE)):
        if WHOLE[end] != ".":
            with pytest.raises(RequestError, match="cursor: this is not a cursor"):
                parse(WHOLE[:end])


@pytest.mark.promise("p-cursor-checked")
def test_a_cursor_of_which_one_character_is_another_is_refused() -> None:
    for place, was in enumerate(WHOLE):
        for other in "AaZ05_-x":
            text = WHOLE[:place] + other + WHOLE[place + 1 :]
            if other != was and parse_or_none(text) is not None:
                # The spare bits of a part's last character say nothing.
                assert parse(text) == parse(WHOLE)
                assert place + 1 == len(WHOLE) or WHOLE[place + 1] == "."


def parse_or_none(text: str) -> ResumeCursor | None:
    try:
        return parse(text)
    except RequestError:
        return None


@given(st.integers(5, 255), st.binary(max_size=50), st.integers(0, 4))
@pytest.mark.promise("p-later-parts")
def test_parts_of_a_later_version_are_skipped(kind: int, rest: bytes, place: int) -> None:
    parts = WHOLE.split(".")
    parts.insert(place, text_of(bytes((kind,)) + rest))
    assert parse(".".join(parts)) == parse(WHOLE)
    alone = parse(parts[place])
    assert alone.says_nothing
    assert (alone.whole, alone.entries, alone.subscriptions) == (False, {}, NOT_KNOWN)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1 << 50), st.integers(-1, 9)), max_size=12))
@pytest.mark.promise("p-cursor-of-ids", "p-later-part-wins")
def test_of_ids_after_a_cursor_the_later_one_wins_a_partition_at_a_time(moves: list[tuple[int, int, int]]) -> None:
    base = text_of(head_of_cursor(None, 3) + topic_entry(TOPIC, TOPIC_ID, [5, 6], [1, 2]))
    places = {0: (5, 1), 1: (6, 2)}
    ids = []
    for partition, offset, epoch in moves:
        ids.append(MessageIds(TOPIC, TOPIC_ID, partition).of(offset, epoch).decode())
        places[partition] = offset + 1, epoch
    entry = parse(joined([base, *ids])).entry(TOPIC)
    assert entry is not None
    assert {partition: (entry.next(partition), entry.epoch(partition)) for partition in entry.offsets} == places


@pytest.mark.promise("p-first-version")
def test_cursors_and_ids_of_the_first_version_are_read_and_go_with_those_of_this_one() -> None:
    old = first_cursor(cluster_mark("abc"), 12, [(TOPIC, TOPIC_ID, [7, None, 9])], absent=["x"])
    text = joined([old, first_id(TOPIC, TOPIC_ID, 0, 20), MessageIds(TOPIC, TOPIC_ID, 2).of(30, 4).decode()])
    cursor = parse(text)
    assert (cursor.cluster, cursor.subscriptions, cursor.whole, cursor.complete) == (cluster_mark("abc"), 12, True, False)
    entry, absent = cursor.entry(TOPIC), cursor.entry("x")
    assert entry is not None
    assert absent is not None
    assert (entry.identity, absent.identity) == (identity_of(TOPIC_ID), None)
    assert entry.offsets == {0: 21, 2: 31}
    assert entry.unknown == {1}
    assert [entry.epoch(partition) for partition in range(4)] == [NO_EPOCH, NO_EPOCH, 4, NO_EPOCH]
    assert parse(first_cursor(None, 0, [])).subscriptions == NOT_KNOWN  # it was written for three things


@pytest.mark.promise("p-later-part-wins")
def test_a_cursor_of_another_cluster_takes_the_place_of_all_before_it() -> None:
    here, there = (text_of(head_of_cursor(cluster_mark(name), number)) for name, number in (("here", 9), ("there", 4)))
    text = joined([here, MessageIds(TOPIC, TOPIC_ID, 0).of(30).decode(), there])
    assert parse(text) == parse(there)


@pytest.mark.parametrize("subscriptions", [NOT_KNOWN, OF_A_PAGE, 0, 1, 1 << 60])
def test_empty_not_known_and_of_a_page_are_three_different_things(subscriptions: int) -> None:
    assert parse(text_of(head_of_cursor(None, subscriptions))).subscriptions == subscriptions


@pytest.mark.promise("p-cursor-size")
def test_three_hundred_chats_that_are_absent_cost_a_few_bytes_each() -> None:
    named = head_of_cursor(cluster_mark("abc"), 10**6) + b"".join(absent_entry(f"kafka.chat.{n}") for n in range(310))
    assert len(text_of(named)) <= 310 * 7
    there = head_of_cursor(cluster_mark("abc"), 10**6) + b"".join(
        topic_entry(f"kafka.chat.{n}", TOPIC_ID, [10**6], [3]) for n in range(200)
    )
    assert len(text_of(there)) <= 200 * 18


def lines_of(text: str) -> int:
    """Parse a text, and return how many lines of the parser ran."""
    ran = 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        nonlocal ran
        ran += event == "line"
        return trace if frame.f_code.co_filename in (cursor_module.__file__, cursor_bytes.__file__) else None

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


async def test_a_long_text_is_parsed_in_turns() -> None:
    text = LARGE["topics"](TEXT_LENGTH // 2)
    at_once = parse(text)
    with loop_steps() as steps:
        await trio.lowlevel.checkpoint()
        in_turns = await parse_in_turns(text)
        await trio.lowlevel.checkpoint()
    steps.check()
    assert in_turns == at_once


def test_a_cursor_that_names_too_many_partitions_is_refused_by_that_number() -> None:
    assert parse(text_of(head_of_cursor(None, 0) + topic_entry(TOPIC, TOPIC_ID, [5] * PARTITIONS))).entry(TOPIC) is not None
    assert parse(text_of(head_of_cursor(None, 0) + topic_entry(TOPIC, TOPIC_ID, [5]) * PARTITIONS)).entry(TOPIC) is not None
    for named in (
        head_of_cursor(None, 0) + topic_entry(TOPIC, TOPIC_ID, [5] * (PARTITIONS + 1)),
        head_of_cursor(None, 0) + topic_entry(TOPIC, TOPIC_ID, [5]) * (PARTITIONS + 1),
    ):
        with pytest.raises(RequestError, match="cursor names too many partitions; at most 32768 are allowed") as caught:
            parse(text_of(named))
        assert caught.value.field == "cursor"
    with pytest.raises(RequestError, match="at most 1048576 are allowed"):
        parse("A" * (TEXT_LENGTH + 1))


def parsed(text: str) -> tuple[ResumeCursor, int]:
    """Return a cursor, and how many bytes Python holds for it."""
    tracemalloc.start()
    try:
        cursor = parse(text)
        return cursor, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [*LARGE][:5])
def test_a_cursor_counts_for_about_what_it_takes(kind: str) -> None:
    text = LARGE[kind](30_000)
    parse(text)  # what is remembered of names is not the cursor's
    cursor, held = parsed(text)
    assert 0.7 * held <= cursor.held_bytes <= 5 * held


def test_ids_name_as_many_partitions_as_the_highest_of_them_says() -> None:
    entry = parse(".".join(MessageIds(TOPIC, TOPIC_ID, partition).of(9).decode() for partition in (4, 2))).entry(TOPIC)
    assert entry is not None
    assert entry.partitions == 5
    assert entry.offsets == {2: 10, 4: 10}


def test_a_cursor_of_64_kib_costs_less_than_half_a_megabyte() -> None:
    for text in (LARGE["one topic with short offsets"](43_000), LARGE["ids in one topic"](65_000)):
        cursor, held = parsed(text)
        assert cursor.entries
        assert held < 512 * 1024


def test_an_id_names_a_partition_as_a_topic_may_have() -> None:
    most = 1 << 20
    assert parse(MessageIds(TOPIC, TOPIC_ID, most - 1).of(9).decode()).entry(TOPIC) is not None
    with pytest.raises(RequestError):
        parse(MessageIds(TOPIC, TOPIC_ID, most).of(9).decode())
