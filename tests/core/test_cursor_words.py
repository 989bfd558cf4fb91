"""What `kafka-chat cursor` prints, and how `listen` keeps a cursor in a file and reports gaps."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import trio
import trio.testing

from kafka_chat.chat.resume_cursor import (
    NOT_KNOWN,
    OF_A_PAGE,
    MessageIds,
    absent_entry,
    cluster_mark,
    head_of_cursor,
    joined,
    parse,
    text_of,
    topic_entry,
    topic_mark,
)
from kafka_chat.cli.cursor_file import NOTE_SECONDS, CursorFile, CursorNotKept, open_notes
from kafka_chat.cli.cursor_words import facts_of, words_of
from kafka_chat.cli.listen import gap_sentence, in_flags
from kafka_chat.cli.main import main
from kafka_chat.client import Gap
from kafka_chat.errors import SettingsError
from tests.support.deadlines import HANG_SECONDS

TOPIC, TOPIC_ID = "kafka.chat.room1", "Tq7hxZ0bQnCkzN8r0gHbDw"
MARK, CLUSTER = topic_mark(TOPIC).hex(), cluster_mark("abc").hex()
CURSOR = text_of(
    head_of_cursor(cluster_mark("abc"), 12) + topic_entry(TOPIC, TOPIC_ID, [41, None, 0], [3, -1, -1]) + absent_entry("kafka.chat.x")
)
ID = MessageIds(TOPIC, TOPIC_ID, 1).of(7).decode()


@pytest.mark.promise("p-cursor-in-words")
def test_a_cursor_is_said_in_words():
    assert list(words_of(parse(CURSOR), [TOPIC])) == [
        f"a cursor of the cluster {CLUSTER}: everything before this is delivered",
        "subscriptions are known as of offset 12 of their topic",
        f"topic {MARK} (kafka.chat.room1), an id that begins with Tq7hx",
        "  partition 0: next is offset 41, after epoch 3 at most",
        "  partition 1: next is unknown",
        "  partition 2: next is offset 0",
        f"topic {topic_mark('kafka.chat.x').hex()}: there was no such topic",
    ]


def test_a_position_is_said_in_words():
    assert list(words_of(parse(ID), [])) == [
        "a position, from ids of messages: everything before this is delivered; other partitions begin as without it",
        f"topic {MARK}, an id that begins with Tq7hx",
        "  partition 1: next is offset 8",
    ]


def test_what_is_not_known_is_said_so():
    anonymous = text_of(head_of_cursor(None, 0))
    assert list(words_of(parse(joined([anonymous, ID])), [])) == [
        "a cursor of an unnamed cluster: everything before this is delivered",
        "subscriptions are known as of offset 0 of their topic",
        f"topic {MARK}, an id that begins with Tq7hx",
        "  partition 1: next is offset 8",
        "  other partitions begin where the user subscribed, or else as without a cursor",
    ]


@pytest.mark.parametrize(
    ("subscriptions", "words"),
    [
        (0, "subscriptions are known as of offset 0 of their topic"),
        (NOT_KNOWN, "it does not say up to which offset subscriptions were known"),
        (OF_A_PAGE, "from a page of history: it says nothing about subscriptions"),
    ],
)
def test_what_is_said_of_subscriptions_is_said_apart(subscriptions: int, words: str):
    cursor = parse(text_of(head_of_cursor(None, subscriptions, complete=True)))
    unnamed = "chats subscribed to by then and not named here had no topic; they begin with their first message"
    assert list(words_of(cursor, []))[1:] == [words, unnamed]
    assert facts_of(cursor, [])["subscriptions"] == (0 if subscriptions == 0 else None)


def test_programs_get_the_same():
    assert facts_of(parse(CURSOR), [TOPIC]) == {
        "cluster": CLUSTER,
        "subscriptions": 12,
        "whole": True,
        "complete": False,
        "topics": [
            {
                "hash": MARK,
                "name": TOPIC,
                "id": "Tq7hx",
                "whole": True,
                "epochs": {"0": 3},
                "next": {"0": 41, "1": None, "2": 0},
                "since_ms": {},
            },
            {"hash": topic_mark("kafka.chat.x").hex(), "name": None, "id": None, "whole": True, "epochs": {}, "next": {}, "since_ms": {}},
        ],
    }


def test_the_command_says_it_and_what_is_none_is_a_matter_of_flags(capsys):
    assert main(["cursor", CURSOR, "--topic", TOPIC]) == 0
    assert capsys.readouterr().out.splitlines() == list(words_of(parse(CURSOR), [TOPIC]))
    assert main(["cursor", CURSOR, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == facts_of(parse(CURSOR), [])
    for text in ("", "hello", f"{CURSOR}.", CURSOR[:-3], "_w"):
        assert main(["cursor", text]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert said.err.startswith("kafka-chat: cursor: ")


def test_a_file_keeps_the_last_cursor_and_nothing_beside_it(tmp_path):
    path = tmp_path / "cursor"
    file = CursorFile(path)
    assert file.read() is None
    file.keep(None)
    assert not path.exists()
    file.keep(CURSOR)
    file.keep(joined([CURSOR, ID]))
    assert CursorFile(path).read() == joined([CURSOR, ID])
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_a_link_stays_one(tmp_path):
    path, target = tmp_path / "link", tmp_path / "target"
    path.symlink_to(target)
    CursorFile(path).keep(CURSOR)
    assert path.is_symlink()
    assert target.read_text() == f"{CURSOR}\n"


async def test_what_is_noted_is_kept_at_once_then_seldom_and_when_the_block_ends(tmp_path, autojump_clock):
    file = CursorFile(tmp_path / "cursor")
    cursors = [text_of(head_of_cursor(None, number)) for number in range(1, 5)]

    def kept() -> str | None:
        return CursorFile(tmp_path / "cursor").read()

    with pytest.raises(LookupError):  # noqa: PT012 - the block raises
        async with open_notes(file) as note:
            assert kept() is None
            note(cursors[0])
            await trio.testing.wait_all_tasks_blocked()
            assert kept() == cursors[0]
            note(cursors[1])
            await trio.testing.wait_all_tasks_blocked()
            note(cursors[2])
            assert kept() == cursors[0]
            await trio.sleep(2 * NOTE_SECONDS)
            assert kept() == cursors[2]
            note(cursors[3])
            raise LookupError
    assert kept() == cursors[3]


async def test_a_block_whose_notes_cannot_be_kept_is_ended(tmp_path):
    with pytest.raises(CursorNotKept):  # noqa: PT012 - the block waits
        async with open_notes(CursorFile(tmp_path / "no" / "cursor")) as note:
            note(CURSOR)
            await trio.sleep_forever()


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\xff"])
def test_a_file_that_holds_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "cursor"
    path.write_bytes(content)
    said = f"{path} (is empty|holds no cursor); delete it to begin without a cursor, or name another file"
    with pytest.raises(SettingsError, match=said):
        CursorFile(path).read()
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_read_or_written_is_told(tmp_path):
    with pytest.raises(SettingsError, match="is not a file"):
        CursorFile(tmp_path).read()
    with pytest.raises(CursorNotKept, match="cannot be written: No such file or directory"):
        CursorFile(tmp_path / "no" / "cursor").keep(CURSOR)
    with pytest.raises(CursorNotKept, match="cannot be written: Is a directory"):
        CursorFile(tmp_path).keep(CURSOR)
    assert list(tmp_path.parent.glob(f".{tmp_path.name}.*")) == []


@pytest.mark.parametrize(
    ("lost", "left", "cause", "sentence"),
    [
        (
            5,
            17,
            "retention",
            "messages of room1/0 are lost: offsets 5 to 16 are gone (deleted by age, by size or by hand); it continues at 17",
        ),
        (5, 6, "retention", "messages of room1/0 are lost: offset 5 is gone (deleted by age, by size or by hand); it continues at 6"),
        (5, 0, "recreated", "messages of room1/0 may be lost, from offset 5 on (the topic was deleted or recreated); it continues at 0"),
        (9, 4, "truncated", "messages of room1/0 may be lost, from offset 9 on (a broker lost the end of its log); it continues at 4"),
        (9, 4, "magic", "messages of room1/0 may be lost, from offset 9 on (magic); it continues at 4"),
    ],
)
def test_a_gap_is_said_in_words(lost, left, cause, sentence):
    assert gap_sentence(Gap(chat="room1", partition=0, first_lost=lost, first_left=left, cause=cause)) == sentence


def test_another_cluster_is_said_in_words():
    gap = Gap(chat=None, partition=None, first_lost=None, first_left=None, cause="cluster")
    assert gap_sentence(gap).startswith("the cursor is from another Kafka cluster")


def test_a_topic_that_the_cursor_does_not_name_is_told(capsys: pytest.CaptureFixture[str]):
    assert main(["cursor", CURSOR, "--topic", TOPIC, "--topic", "room1", "--topic", "kafka.chat.y"]) == 0
    said = capsys.readouterr()
    assert f"({TOPIC})" in said.out
    assert [line.partition(" is not in the cursor")[0] for line in said.err.splitlines()] == [
        "kafka-chat: room1",
        "kafka-chat: kafka.chat.y",
    ]


def test_a_partition_that_had_no_leader_is_told_with_the_time_since_when_its_messages_are_due():
    cursor = parse(text_of(head_of_cursor(None, NOT_KNOWN) + topic_entry("kafka.chat.x", "id", [None, None], [1_796_000_000, -1])))
    assert [line for line in words_of(cursor, []) if "partition" in line] == [
        "  partition 0: next is unknown; messages since 2026-11-30T00:53:20Z are due",
        "  partition 1: next is unknown",
    ]
    facts: Any = facts_of(cursor, [])["topics"]
    assert [(one["epochs"], one["since_ms"]) for one in facts] == [({}, {"0": 1_796_000_000_000})]


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("topic is 'a b'; letters are needed (400)", "--chat is 'a b'; letters are needed (400)"),
        ("from is 'noon'; a time is needed", "--from is 'noon'; a time is needed"),
        ("nobody answers", "nobody answers"),
    ],
)
def test_what_the_service_refuses_is_told_by_the_flag(sentence: str, said: str):
    assert in_flags(sentence) == said


def test_a_cursor_without_end_on_stdin_is_not_read_to_its_end():
    with open("/dev/zero") as zero:
        done = subprocess.run(
            [sys.executable, "-m", "kafka_chat", "cursor", "-"],
            stdin=zero,
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=False,
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kafka-chat: stdin has more than 16,777,216 characters")
