"""A client's place: what it comes back with, and what is no news to it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_chat.chat.cursor import parse
from kafka_chat.client.events import Gap, Heartbeat, Hello, Live, Message, parse_frame
from kafka_chat.client.progress import Place
from tests.conformance.service import Chat, cursor_of

ROOM = Chat("room1")
FROM_ZERO = Chat("room1", "the second")


def message(offset: int, *, partition: int = 0, chat: Chat = ROOM) -> Message:
    return Message(
        sender="ann",
        text="",
        tag=None,
        chat=chat.name,
        id=chat.id_of(offset, partition=partition),
        partition=partition,
        offset=offset,
        frame="",
    )


def gap(first_lost: int, first_left: int, cause: str) -> Gap:
    return Gap(chat="room1", partition=0, first_lost=first_lost, first_left=first_left, cause=cause)


def test_nothing_is_known_before_anything_has_come():
    assert Place().cursor is None


def test_a_cursor_without_a_message_is_kept_as_it_is():
    given = cursor_of({ROOM: [3, 4]})
    place = Place(given)
    assert place.note(Hello(resume="exact"))  # where the service is is not known to it yet
    assert place.cursor == given
    place.note(Live(cursor=cursor_of({ROOM: [5, 5]})))
    assert place.cursor == cursor_of({ROOM: [5, 5]})


def test_ids_follow_the_cursor_of_the_last_control_frame_one_a_partition():
    place = Place()
    place.note(Hello(cursor=cursor_of({ROOM: [0, 0]})))
    for offset in range(3):
        assert place.note(message(offset))
    assert place.note(message(7, partition=1))
    assert place.cursor == f"{cursor_of({ROOM: [0, 0]})}.{ROOM.id_of(2)}.{ROOM.id_of(7, partition=1)}"
    place.note(Heartbeat(cursor=cursor_of({ROOM: [9, 8]})))
    assert place.cursor == cursor_of({ROOM: [9, 8]})


def test_another_cluster_is_another_beginning():
    place = Place(cursor_of({ROOM: [5]}))
    place.note(message(9))
    place.note(Hello(resume="none", cursor=None))
    assert place.cursor is None
    assert place.note(message(0))


def test_what_a_cursor_stands_for_is_no_news():
    place = Place(cursor_of({ROOM: [5, None]}))
    assert not place.note(message(4))
    assert place.note(message(0, partition=1))
    assert place.note(message(0, partition=7))
    assert place.note(message(5))
    assert not place.note(message(5))
    assert place.note(message(4, chat=FROM_ZERO))  # another topic


def test_a_cursor_of_a_later_version_is_handed_over_unread():
    place = Place("_w")
    assert place.note(message(0))
    assert place.cursor == f"_w.{ROOM.id_of(0)}"


def test_what_is_written_anew_where_a_log_has_lost_its_end_is_news():
    place = Place(cursor_of({ROOM: [9]}))
    assert place.note(gap(9, 4, "truncated"))
    assert place.note(message(4))
    assert place.note(message(5))
    assert not place.note(message(4))
    assert place.note(gap(6, 5, "truncated"))
    assert place.note(message(5))


def test_a_topic_that_was_made_anew_begins_at_its_start_and_its_id_is_the_last_word():
    place = Place(cursor_of({ROOM: [0, 0]}))
    for offset in range(3):
        place.note(message(offset, partition=offset % 2))
    assert place.note(gap(3, 0, "recreated"))
    assert place.note(message(0, chat=FROM_ZERO))
    assert not place.note(message(0, chat=FROM_ZERO))
    cursor = place.cursor
    assert cursor is not None
    told = parse(cursor).place(ROOM.topic)
    only = parse(FROM_ZERO.id_of(0)).place(ROOM.topic)
    assert told is not None
    assert only is not None
    assert (told.identity, told.offsets) == (only.identity, only.offsets)


def test_a_gap_that_is_told_again_before_a_message_has_come_is_no_news():
    place = Place(cursor_of({ROOM: [3]}))
    assert place.note(gap(3, 40, "retention"))
    assert not place.note(gap(3, 40, "retention"))
    assert place.note(gap(3, 50, "retention"))  # more is gone by now
    assert place.note(message(50))
    assert place.note(gap(51, 60, "retention"))


@dataclass
class Service:
    """Delivers two partitions from wherever a cursor says, and repeats itself."""

    ends: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    at: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})

    def resume(self, cursor: str | None) -> None:
        place = None if cursor is None else parse(cursor).place(ROOM.topic)
        self.at = {partition: place.offsets.get(partition, 0) if place else 0 for partition in self.at}

    def cursor(self) -> str:
        return cursor_of({ROOM: [self.at[0], self.at[1]]})


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["produce", "deliver", "repeat", "beat", "cut"]), st.integers(0, 1), st.integers(1, 5))))
def test_whatever_is_cut_and_repeated_each_message_is_news_once_and_in_order(steps: list[tuple[str, int, int]]):
    service, place = Service(), Place()
    seen: dict[int, list[int]] = {0: [], 1: []}

    def deliver(partition: int, first: int, end: int) -> None:
        seen[partition] += [offset for offset in range(first, end) if place.note(message(offset, partition=partition))]

    for step, partition, count in [("cut", 0, 1), *steps, ("cut", 0, 1), ("deliver", 0, 1000), ("deliver", 1, 1000)]:
        at, end = service.at[partition], service.ends[partition]
        if step == "produce":
            service.ends[partition] += count
        elif step == "deliver":
            service.at[partition] = min(at + count, end)
            deliver(partition, at, service.at[partition])
        elif step == "repeat":
            deliver(partition, max(0, at - count), at)
        elif step == "beat":
            place.note(Heartbeat(cursor=service.cursor()))
        else:
            service.resume(place.cursor)
            place.note(Hello(resume="exact", cursor=service.cursor()))
    assert seen == {partition: list(range(end)) for partition, end in service.ends.items()}


def test_the_ids_of_the_protocol_are_those_that_messages_have():
    parsed = parse_frame(json.dumps(ROOM.message(3)))
    assert isinstance(parsed, Message)
    assert not Place(cursor_of({ROOM: [4]})).note(parsed)
    assert Place(cursor_of({ROOM: [3]})).note(parsed)
