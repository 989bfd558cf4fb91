"""How the client parses frames, and builds URLs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.client.events import Failed, Gap, Hello, Live, Message, NotUnderstood, Subscribed, parse_bare_frame, parse_frame
from kafka_chat.client.query import Asked
from tests.conformance.service import Chat

ROOM = Chat("room1")


def test_a_message_has_its_place_key_and_headers():
    headers = [["a", "b"], ["a", None], ["", {"base64": "AP8="}]]
    frame = json.dumps(ROOM.message(41, partition=2, time=None, key={"base64": "/w=="}, headers=headers, colour="blue"))
    message = parse_frame(frame)
    assert isinstance(message, Message)
    assert (message.sender, message.text, message.tag, message.chat) == ("ann", "room1 2 41", None, "room1")
    assert (message.id, message.partition, message.offset, message.time_ms) == (ROOM.id_of(41, partition=2), 2, 41, None)
    assert (message.key, message.headers) == (b"\xff", (("a", "b"), ("a", None), ("", b"\0\xff")))
    assert message.frame == frame


@given(st.text(), st.text(), st.none() | st.text())
def test_a_message_can_be_shown_as_who_does_not_ask_for_v1_gets_it(sender: str, text: str, tag: str | None):
    frame = {"sender": sender, "text": text, "tag": tag, "chat": "room1"}
    message = parse_frame(json.dumps({**frame, "meta": {"id": "x", "partition": 0, "offset": 0}}))
    assert isinstance(message, Message)
    assert json.loads(message.bare) == frame
    assert message.bare == json.dumps(frame, separators=(",", ":"), ensure_ascii=False).replace("\x7f", "\x7f")
    bare = parse_bare_frame(message.bare)
    assert (bare.sender, bare.text, bare.tag, bare.chat, bare.id) == (sender, text, tag, "room1", None)


@pytest.mark.parametrize(
    ("meta", "event"),
    [
        ({"type": "live", "cursor": None, "re": 9, "chat": 7}, Live()),
        ({"type": "hello", "resume": "exact", "chats": ["a"], "limits": {"colour": "blue"}}, Hello(resume="exact", chats=("a",))),
        (
            {"type": "gap", "chat": "a", "partition": 0, "first_lost": 1, "first_left": 2, "cause": "a new one"},
            Gap(chat="a", partition=0, first_lost=1, first_left=2, cause="a new one"),
        ),
        ({"type": "subscribed", "chat": "a", "exists": True, "positions": {"0": 12}}, Subscribed(chat="a", exists=True, positions={0: 12})),
        ({"type": "error", "code": 409, "message": "no", "field": None, "re": 1}, Failed(code=409, message="no", re=1)),
        ({"type": "weather", "chat": "a"}, None),
    ],
)
def test_a_control_frame_is_what_its_type_says_and_one_of_a_later_version_is_nothing(meta, event):
    assert parse_frame(json.dumps({"meta": meta})) == event


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "hello",
        "[]",
        "{}",
        b"{}",
        '{"meta":{}}',
        '{"meta":{"type":"gap"}}',
        '{"sender":"a","text":"t","tag":null,"chat":"c"}',
        '{"sender":"a","text":"t","tag":null,"chat":"c","meta":{"id":"x"}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_frame_of_the_protocol_is_told(frame):
    with pytest.raises(NotUnderstood):
        parse_frame(frame)


def query(asked: Asked, cursor: str | None = None, *, begun: bool = False) -> dict[str, list[str]]:
    found = parse_qs(asked.query(cursor, begun=begun), keep_blank_values=True, strict_parsing=True)
    assert found.pop("heartbeat") == ["20"]
    return found


def test_who_asks_for_nothing_says_nothing():
    assert query(Asked()) == {}


def test_where_to_begin_is_said_until_the_service_has_said_where_it_is_and_what_to_see_always():
    asked = Asked(from_="-15m", rewind=3, until="2026-11-25T10:00:00+02:00", chats=("a", "b"), tags=("", "t&t"), senders=("zoë",))
    always = {"until": ["2026-11-25T10:00:00+02:00"], "chat": ["a", "b"], "tag": ["", "t&t"], "sender": ["zoë"]}
    assert query(asked) == {"from": ["-15m"], "rewind": ["3"], **always}
    assert query(asked, "AQ") == {"cursor": ["AQ"], "from": ["-15m"], "rewind": ["3"], **always}
    assert query(asked, "AQ", begun=True) == {"cursor": ["AQ"], **always}


def test_a_cursor_that_is_too_long_for_an_address_comes_as_a_frame():
    assert query(Asked(), "A" * 4096) == {"cursor": ["A" * 4096]}
    assert query(Asked(), "A" * 4097) == {"cursor": ["frame"]}


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 25, 10, tzinfo=UTC), "1795600800000"),
        (datetime(2026, 11, 25, 12, tzinfo=timezone(timedelta(hours=2))), "1795600800000"),
        (timedelta(minutes=15), "-900s"),
        (1795600800000, "1795600800000"),
        ("earliest", "earliest"),
    ],
)
def test_a_moment_may_be_said_in_python_words(moment, text):
    assert query(Asked(from_=moment)) == {"from": [text]}


def test_a_time_without_a_zone_is_none():
    with pytest.raises(ValueError, match="has no time zone"):
        Asked(from_=datetime(2026, 11, 25, 10)).query(None, begun=False)
