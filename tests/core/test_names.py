"""Which names are valid, and which are the same."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.chat.names import ChatNames, comparable, parse_username
from kafka_chat.errors import RequestError
from tests.support.loop_steps import loop_steps

NAMES = ChatNames("kafka.chat.")


@pytest.mark.parametrize(
    ("text", "chat"),
    [
        ("room1", "room1"),
        ("kafka.chat.room1", "room1"),
        ("kafka.chat.kafka.chat.x", "kafka.chat.x"),
        ("A-z_0.9", "A-z_0.9"),
        ("x" * 238, "x" * 238),
    ],
)
def test_a_chat_may_be_named_by_itself_or_by_its_topic(text, chat):
    assert NAMES.parse(text, field="topic") == chat
    assert NAMES.chat(NAMES.topic(chat)) == chat


@pytest.mark.parametrize("text", ["", "kafka.chat.", "x" * 239, "a b", "a/b", "é", "a\n", "a\0", "*"])
def test_what_no_topic_can_be_called_is_refused_by_the_name_of_the_field(text):
    with pytest.raises(RequestError, match="topic") as caught:
        NAMES.parse(text, field="topic")
    assert caught.value.field == "topic"


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"ann", "ann"),
        (b"%C3%A4nn", "änn"),
        (b"a%CC%88nn", "änn"),
        ("änn".encode(), "änn"),
        (b"a+b", "a+b"),
        (b"%20", " "),
        (b"x" * 255, "x" * 255),
        (b"100%", "100%"),
    ],
)
@pytest.mark.promise("p-username")
def test_a_username_is_percent_decoded_and_brought_to_nfc(raw, name):
    assert parse_username(raw) == name


@pytest.mark.parametrize("raw", [b"", b"%FF", b"%ED%A0%80", b"a%2Fb", b"%00", b"a%0A", b"%C2%85", b"x" * 256, b"%C3%A4" * 128])
@pytest.mark.promise("p-username")
def test_an_illegal_username_is_refused(raw):
    with pytest.raises(RequestError, match="username") as caught:
        parse_username(raw)
    assert caught.value.field == "username"


@given(st.binary(max_size=300))
def test_any_segment_is_a_legal_name_or_a_request_error(raw):
    try:
        name = parse_username(raw)
    except RequestError:
        return
    assert 1 <= len(name.encode()) <= 255


@pytest.mark.parametrize("name", ["José", "Zoë", "각각", "ᾂ" * 85, "Å" * 127, "한" * 85, "q̣̇", "ann"])
def test_a_name_is_compared_alike_however_it_is_spelled(name: str):
    spellings = {unicodedata.normalize(form, name) for form in ("NFC", "NFD")}
    assert len({comparable(spelling) for spelling in spellings}) == 1
    assert {parse_username(spelling.encode()) for spelling in spellings} == {comparable(name)}


def test_an_ångström_is_a_letter():
    assert comparable("\u212b") == comparable("A\u030a") == "\u00c5"


@given(st.text(max_size=60))
def test_what_is_comparable_stays_as_it_is(text: str):
    assert comparable(comparable(text)) == comparable(text)


STACKED = "a" + "\u0301" * 15_000 + "\u0327" * 15_000  # to put these marks in their order takes a second


@pytest.mark.parametrize("name", [STACKED, STACKED[14_900:15_200], "e\u0301" * 171])
def test_what_is_no_name_is_compared_as_it_is(name: str):
    assert comparable(name) == name


@pytest.mark.parametrize(
    "name",
    [
        quote("e\u0301" * 1000).encode(),
        quote(STACKED[12_500:17_500]).encode(),
        b"%CC%81" * 500,
        "\u0301".encode() * 383,
        "\u0327\u0301".encode() * 5000,
    ],
)
async def test_a_name_that_is_too_long_in_any_spelling_is_refused_unspelled(name: bytes):
    with loop_steps() as steps:
        await trio.lowlevel.checkpoint()
        with pytest.raises(RequestError, match="1 to 255 are allowed"):
            parse_username(name)
        await trio.lowlevel.checkpoint()
    steps.check()


def test_so_many_marks_in_a_row_are_put_in_their_order_and_no_more():
    for text in ("e\u0301", "xe\u0301"):
        most = text + "\u0301" * 29  # thirty in all, as Stream-Safe Text of Unicode has them
        assert comparable(most) == unicodedata.normalize("NFC", most) != most
        assert comparable(most + "\u0301") == most + "\u0301"


def test_a_name_that_is_refused_is_shown_up_to_sixty_characters():
    names = ChatNames("kafka.chat.")
    for name, shown in [("!" * 60, "!" * 60), ("!" * 61, "!" * 57 + "..."), ("!" * 80, "!" * 57 + "...")]:
        with pytest.raises(RequestError, match=re.escape(f"chat is '{shown}'; a chat is made of")):
            names.parse(name, field="chat")
