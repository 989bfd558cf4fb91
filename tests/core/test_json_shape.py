"""What is wrong with a client's JSON is reported in plain words, with the field."""

from __future__ import annotations

import msgspec
import pytest

from kafka_chat.chat.json_shape import said_plainly


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What a client may say."""

    text: str
    tag: str | None = None
    chats: list[str] | None = None


SAID = {
    b"{}": ("text is missing", "text"),
    b'{"text":1}': ("text is a number; a string is needed", "text"),
    b'{"text":"x","tag":[]}': ("tag is a list; a string or null is needed", "tag"),
    b'{"text":"x","chats":[true]}': ("chats[0] is true or false; a string is needed", "chats"),
    b'{"text":"x","colour":1}': ("there is no field colour", "colour"),
    b'{"text":"x","a` - at `$.text`":1}': ("there is no field a` - at `$.text`", "a` - at `$.text`"),
    b"[]": ("the body is a list; an object is needed", None),
}


@pytest.mark.parametrize(("said", "plain"), SAID.items())
def test_a_wrong_field_is_said_in_plain_words(said: bytes, plain: tuple[str, str | None]) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(said, type=Asked)
    assert said_plainly(caught.value, what="the body") == plain


def test_what_is_not_known_is_passed_on() -> None:
    error = msgspec.ValidationError("Expected `str` of length >= 1 - at `$.text`")
    assert said_plainly(error, what="the body") == ("the body is wrong: Expected `str` of length >= 1 - at `$.text`", "text")


def test_a_long_name_is_cut() -> None:
    error = msgspec.ValidationError(f"Object contains unknown field `{'x' * 5000}`")
    assert said_plainly(error, what="the body") == (f"there is no field {'x' * 100}", "x" * 100)
