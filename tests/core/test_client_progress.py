"""A client's position: the cursor it resumes with, and which messages are duplicates."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from kafka_chat.chat.resume_cursor import parse
from kafka_chat.client.events import Gap, Heartbeat, Hello, Live, Message, parse_frame
from kafka_chat.client.progress import Progress
from tests.conformance.service import Chat, cursor_of

ROOM = Chat("room1")
RECREATED = Chat("room1", "the second")


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
    assert Progress().cursor is None


def test_a_cursor_without_a_message_is_kept_as_it_is():
    given = cursor_of({ROOM: [3, 4]})
    progress = Progress(given)
    assert progress.note(Hello(resume="exact"))  # where the service is is not known to it yet
    assert progress.cursor == given
    progress.note(Live(cursor=cursor_of({ROOM: [5, 5]})))
    assert progress.cursor == cursor_of({ROOM: [5, 5]})


def test_ids_follow_the_cursor_of_the_last_control_frame_one_a_partition():
    progress = Progress()
    progress.note(Hello(cursor=cursor_of({ROOM: [0, 0]})))
    for offset in range(3):
        assert progress.note(message(offset))
    assert progress.note(message(7, partition=1))
    assert progress.cursor == f"{cursor_of({ROOM: [0, 0]})}.{ROOM.id_of(2)}.{ROOM.id_of(7, partition=1)}"
    progress.note(Heartbeat(cursor=cursor_of({ROOM: [9, 8]})))
    assert progress.cursor == cursor_of({ROOM: [9, 8]})


def test_another_cluster_is_another_beginning():
    progress = Progress(cursor_of({ROOM: [5]}))
    progress.note(message(9))
    progress.note(Hello(resume="none", cursor=None))
    assert progress.cursor is None
    assert progress.note(message(0))


def test_what_a_cursor_stands_for_is_no_news():
    progress = Progress(cursor_of({ROOM: [5, None]}))
    assert not progress.note(message(4))
    assert progress.note(message(0, partition=1))
    assert progress.note(message(0, partition=7))
    assert progress.note(message(5))
    assert not progress.note(message(5))
    assert progress.note(message(4, chat=RECREATED))  # another topic


def test_a_cursor_of_a_later_version_is_handed_over_unread():
    progress = Progress("_w")
    assert progress.note(message(0))
    assert progress.cursor == f"_w.{ROOM.id_of(0)}"


def test_what_is_written_anew_where_a_log_has_lost_its_end_is_news():
    progress = Progress(cursor_of({ROOM: [9]}))
    assert progress.note(gap(9, 4, "truncated"))
    assert progress.note(message(4))
    assert progress.note(message(5))
    assert not progress.note(message(4))
    assert progress.note(gap(6, 5, "truncated"))
    assert progress.note(message(5))


def test_a_topic_that_was_made_anew_begins_at_its_start_and_its_id_is_the_last_word():
    progress = Progress(cursor_of({ROOM: [0, 0]}))
    for offset in range(3):
        progress.note(message(offset, partition=offset % 2))
    assert progress.note(gap(3, 0, "recreated"))
    assert progress.note(message(0, chat=RECREATED))
    assert not progress.note(message(0, chat=RECREATED))
    cursor = progress.cursor
    assert cursor is not None
    told = parse(cursor).entry(ROOM.topic)
    only = parse(RECREATED.id_of(0)).entry(ROOM.topic)
    assert told is not None
    assert only is not None
    assert (told.identity, told.offsets) == (only.identity, only.offsets)


def test_a_gap_that_is_told_again_before_a_message_has_come_is_no_news():
    progress = Progress(cursor_of({ROOM: [3]}))
    assert progress.note(gap(3, 40, "retention"))
    assert not progress.note(gap(3, 40, "retention"))
    assert progress.note(gap(3, 50, "retention"))  # more is gone by now
    assert progress.note(message(50))
    assert progress.note(gap(51, 60, "retention"))


@dataclass
class Service:
    """Delivers two partitions from wherever a cursor says, and repeats itself."""

    ends: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    at: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})

    def resume(self, cursor: str | None) -> None:
        entry = None if cursor is None else parse(cursor).entry(ROOM.topic)
        self.at = {partition: entry.offsets.get(partition, 0) if entry else 0 for partition in self.at}

    def cursor(self) -> str:
        return cursor_of({ROOM: [self.at[0], self.at[1]]})


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["produce", "deliver", "repeat", "beat", "cut"]), st.integers(0, 1), st.integers(1, 5))))
def test_whatever_is_cut_and_repeated_each_message_is_news_once_and_in_order(steps: list[tuple[str, int, int]]):
    service, progress = Service(), Progress()
    seen: dict[int, list[int]] = {0: [], 1: []}

    def deliver(partition: int, first: int, end: int) -> None:
        seen[partition] += [offset for offset in range(first, end) if progress.note(message(offset, partition=partition))]

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
            progress.note(Heartbeat(cursor=service.cursor()))
        else:
            service.resume(progress.cursor)
            progress.note(Hello(resume="exact", cursor=service.cursor()))
    assert seen == {partition: list(range(end)) for partition, end in service.ends.items()}


def test_the_ids_of_the_protocol_are_those_that_messages_have():
    parsed = parse_frame(json.dumps(ROOM.message(3)))
    assert isinstance(parsed, Message)
    assert not Progress(cursor_of({ROOM: [4]})).note(parsed)
    assert Progress(cursor_of({ROOM: [3]})).note(parsed)


def test_a_topic_that_was_made_anew_is_known_by_ids_of_another_form_too():
    progress = Progress()
    assert progress.note(structs.replace(message(3), id="first"))  # no base64
    assert not progress.note(structs.replace(message(3), id="first"))
    assert progress.note(structs.replace(message(0), id="other"))


def test_the_first_message_of_a_topic_that_was_made_anew_is_news_and_only_once():
    progress = Progress()
    assert progress.note(message(5))
    assert progress.note(message(0, chat=RECREATED))
    assert not progress.note(message(0, chat=RECREATED))
    assert progress.cursor == RECREATED.id_of(0)


def test_what_is_lost_of_no_one_partition_is_news_each_time():
    progress = Progress()
    whole = Gap(chat=None, partition=None, first_lost=None, first_left=None, cause="cluster")
    assert [progress.note(whole), progress.note(whole)] == [True, True]
    assert progress.note(gap(3, 7, "retention"))
    assert not progress.note(gap(3, 7, "retention"))
