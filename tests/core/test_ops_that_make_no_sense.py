"""Whatever a client's frame contains, it is an op, or it is refused with a sentence: no frame ends its session as a bug would."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.delivery.session.notices import Op, OpRefused, parse_op

DEEP = "[" * 1000  # msgspec and Python's stack stop at about 900
FIELDS = ["op", "re", "chat", "chats", "text", "tag", "cursor", "unknown"]
VALUES = st.sampled_from(
    ['"ping"', '"room"', "1", "null", "[]", '["a"]', '"\\ud800"', '"\x00"', "1e999", DEEP, DEEP + "]" * 1000, '{"a":' * 1000]
)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("end", ["", "]" * 1000 + "}"])
def test_a_field_that_is_nested_too_deeply_is_refused_and_not_an_error_of_ours(field: str, end: str):
    said = f'{{"{field}":{DEEP}{end}'
    with pytest.raises(OpRefused) as refused:
        parse_op(said)
    assert refused.value.error.status == 400


@given(st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), max_size=6), st.integers(0, 20))
def test_any_frame_is_an_op_or_is_refused(pairs: list[tuple[str, str]], cut: int):
    said = "{" + ",".join(f"{json.dumps(field)}:{value}" for field, value in pairs) + "}"
    refused: OpRefused | None = None
    try:
        assert isinstance(parse_op(said[: len(said) - cut]), Op)
    except OpRefused as error:
        refused = error
    assert refused is None or refused.error.status == 400
