"""How messages look on a terminal, and when a client reconnects."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.cli.terminal import colours_wanted, harmless, message_line
from kafka_chat.client import Message
from kafka_chat.client.backoff import LONGEST_PAUSE_SECONDS, Pauses

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def message(text: str, tag: str | None = None, **meta: object) -> Message:
    return Message(sender="ann", text=text, tag=tag, chat="room1", frame="", **meta)


def test_a_message_is_one_readable_line():
    assert message_line(message("hello"), now=NOW, colours=False) == "03:04:05 room1 ann: hello"
    assert message_line(message("hello", "urgent"), now=NOW, colours=False) == "03:04:05 room1 ann: hello  #urgent"


def test_a_message_that_knows_its_time_is_shown_with_it_and_one_of_another_day_with_its_date():
    now_ms = int(NOW.timestamp() * 1000)
    assert message_line(message("a", time_ms=now_ms - 2000), now=NOW, colours=False) == "03:04:03 room1 ann: a"
    assert message_line(message("a", time_ms=now_ms - 86_400_000), now=NOW, colours=False) == "2026-01-01 03:04:05 room1 ann: a"
    assert message_line(message("a", time_ms=(1 << 63) - 1), now=NOW, colours=False) == "03:04:05 room1 ann: a"


def test_a_message_may_say_where_it_is():
    assert message_line(message("a", partition=2, offset=41), now=NOW, colours=False, with_offsets=True) == "03:04:05 room1/2@41 ann: a"


def test_colours_are_only_added():
    line = message_line(message("hello", "t"), now=NOW, colours=True)
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
    line = message_line(message(text, text), now=NOW, colours=False)
    assert line.replace("\u200c", "").replace("\u200d", "").isprintable()  # joiners only join


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_a_terminal_is_coloured_and_not_where_nobody_wants_it():
    assert colours_wanted(Terminal(), {}.get)
    assert not colours_wanted(io.StringIO(), {}.get)
    assert not colours_wanted(Terminal(), {"NO_COLOR": "1"}.get)
    assert not colours_wanted(Terminal(), {"TERM": "dumb"}.get)


@pytest.mark.promise("p-pauses")
def test_pauses_grow_up_to_a_bound_and_begin_anew_after_a_success():
    pauses = Pauses()
    for bound in (1, 2, 4, 8, 16, 30, 30):
        assert pauses.bound_seconds == bound
        assert 0 <= pauses.next() <= bound
    assert pauses.bound_seconds == LONGEST_PAUSE_SECONDS
    pauses.reset()
    assert pauses.next() <= 1


@pytest.mark.parametrize(("code", "least", "bound"), [(1006, 0, 1), (1011, 1, 2), (1012, 0, 5), (1013, 2, 7)])
@pytest.mark.promise("p-pauses")
def test_some_codes_have_a_pause_of_their_own(code, least, bound):
    assert all(least <= Pauses().next(after=code) <= bound for _ in range(200))
