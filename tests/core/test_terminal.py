"""How messages look on a terminal, and when a client comes back."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.client import LONGEST_PAUSE_SECONDS, Pauses
from kafka_chat.terminal import colours_wanted, harmless, message_line

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def frame(text: str, tag: str | None = None) -> str:
    return json.dumps({"sender": "ann", "text": text, "tag": tag, "chat": "room1"})


def test_a_message_is_one_readable_line():
    assert message_line(frame("hello"), now=NOW, colours=False) == "03:04:05 room1 ann: hello"
    assert message_line(frame("hello", "urgent"), now=NOW, colours=False) == "03:04:05 room1 ann: hello  #urgent"


def test_colours_are_only_added():
    line = message_line(frame("hello", "t"), now=NOW, colours=True)
    assert "\x1b[" in line
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[36m"):
        line = line.replace(code, "")
    assert line == "03:04:05 room1 ann: hello  #t"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb", "a\\nb"), ("\x1b[31mred", "\\x1b[31mred"), ("\x07", "\\x07"), ("\u202eevil", "\\u202eevil"), ("grüße 😀", "grüße 😀")],
)
def test_what_somebody_wrote_cannot_steer_the_terminal(text, shown):
    assert harmless(text) == shown


@given(st.text())
def test_every_text_becomes_one_printable_line(text):
    line = message_line(frame(text, text), now=NOW, colours=False)
    assert line.replace("\u200c", "").replace("\u200d", "").isprintable()  # joiners only join


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_a_terminal_is_coloured_and_not_where_nobody_wants_it():
    assert colours_wanted(Terminal(), {}.get)
    assert not colours_wanted(io.StringIO(), {}.get)
    assert not colours_wanted(Terminal(), {"NO_COLOR": "1"}.get)
    assert not colours_wanted(Terminal(), {"TERM": "dumb"}.get)


def test_pauses_grow_up_to_a_bound_and_begin_anew_after_a_success():
    pauses = Pauses()
    for bound in (1, 2, 4, 8, 16, 30, 30):
        assert pauses.bound_seconds == bound
        assert 0 <= pauses.next() <= bound
    assert pauses.bound_seconds == LONGEST_PAUSE_SECONDS
    pauses.reset()
    assert pauses.next() <= 1
