"""Which records are chat messages, and what a client gets of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.chat.message import Message, Reject, parse, render


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b'{"sender":"ann","text":"hi","tag":"t","topic":"kafka.chat.global"}', Message("ann", "hi", "t")),
        (b'{"sender":"ann","text":"hi"}', Message("ann", "hi", None)),
        (b'{"sender":"ann","text":"hi","tag":null}', Message("ann", "hi", None)),
        (b'{"text":"hi","topic":7,"sender":"ann","more":{"x":[1]}}', Message("ann", "hi", None)),
        (b'{"sender":"","text":"","tag":""}', Message("", "", "")),
        (b'{"sender":"ann","text":"\\ud83d\\ude00\\u0000"}', Message("ann", "😀\0", None)),
        ('{"sender":"änn","text":"é 😀"}'.encode(), Message("änn", "é 😀", None)),
        (b' \n{"sender":"ann","text":"hi"}\n ', Message("ann", "hi", None)),
        (b'{"sender":"ann","text":"hi","sender":"bob"}', Message("bob", "hi", None)),  # of equal keys the last one counts
        (b'{"text":"a","sender":"ann","text":"b","text":"c"}', Message("ann", "c", None)),
        (b'{"sender":"ann","text":"hi","tag":"t","tag":null}', Message("ann", "hi", None)),
        (b'{"sender":"ann","s\\u0065nder":"bob","text":"hi"}', Message("bob", "hi", None)),
    ],
)
@pytest.mark.promise("p-record")
def test_a_chat_message_is_understood(value, message):
    assert parse(value, max_bytes=1000) == message


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reject.TOMBSTONE),
        (b"", Reject.BAD_JSON),
        (b"hello", Reject.BAD_JSON),
        (b'{"sender":"ann","text":"hi"', Reject.BAD_JSON),
        (b'{"sender":"ann","text":"hi"} {}', Reject.BAD_JSON),
        (b'{"sender":"ann","text":"hi","x":NaN}', Reject.BAD_JSON),
        (b'{"sender":1,"text":"hi","sender":"ann"}', Reject.WRONG_SHAPE),  # each of equal keys has to be of its type
        (b'{"sender":"ann","text":"\\ud800"}', Reject.BAD_JSON),
        (b'{"sender":"ann","text":"hi","x":"\\udc00"}', Reject.BAD_JSON),
        (b'{"sender":"ann","text":"a\nb"}', Reject.BAD_JSON),
        (b"\xef\xbb\xbf" + b'{"sender":"ann","text":"hi"}', Reject.BAD_JSON),
        (b'{"sender":"ann","text":"\xff"}', Reject.BAD_UTF8),
        (b'{"sender":"ann","text":"\xed\xa0\x80"}', Reject.BAD_UTF8),
        (b'{"sender":"ann","text":"hi","x":"\xff"}', Reject.BAD_UTF8),
        (b"[]", Reject.WRONG_SHAPE),
        (b"null", Reject.WRONG_SHAPE),
        (b'{"text":"hi"}', Reject.WRONG_SHAPE),
        (b'{"sender":"ann"}', Reject.WRONG_SHAPE),
        (b'{"sender":1,"text":"hi"}', Reject.WRONG_SHAPE),
        (b'{"sender":"ann","text":null}', Reject.WRONG_SHAPE),
        (b'{"sender":"ann","text":"hi","tag":7}', Reject.WRONG_SHAPE),
        (b'{"sender":"ann","text":"hi","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reject.TOO_DEEP),
        (b'{"sender":"ann","text":"' + b"x" * 300_000 + b'"}', Reject.TOO_LARGE),
    ],
)
@pytest.mark.promise("p-record-rejected")
def test_what_is_no_chat_message_is_a_reject_with_its_reason(value, reason):
    assert parse(value, max_bytes=250_000) is reason


@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_reason(value):
    assert isinstance(parse(value, max_bytes=150), Message | Reject)


text = st.text(alphabet=st.characters(exclude_categories=("Cs",)))


@given(text, text, st.none() | text, text)
def test_what_a_client_gets_is_strict_json_with_the_four_fields(sender, body, tag, chat):
    value = json.dumps({"sender": sender, "text": body, "tag": tag, "topic": "x"}).encode()
    message = parse(value, max_bytes=1_000_000)
    assert isinstance(message, Message)
    read = json.loads(render(message, chat).decode("utf-8"), parse_constant=lambda _: 1 / 0)
    assert list(read.items()) == [("sender", sender), ("text", body), ("tag", tag), ("chat", chat)]
