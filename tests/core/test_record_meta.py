"""A record's key and headers are shown as text, or in base64 if they are not text, and left out if too large."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from kafka_chat.chat.message import LeftOut
from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.delivery.records.batch import Batch
from kafka_chat.delivery.records.formats import Format, View
from kafka_chat.delivery.records.frames import text_payloads
from kafka_chat.delivery.records.record import HEADER_BYTES, Record
from kafka_chat.delivery.records.record_meta import HEADERS
from tests.support.fake_topics import value

KEY = PartitionKey("kafka.chat.x", "id", 3)
META_BYTES = 65_536  # of JSON, for key and headers together
V1 = View(format=Format.V1)


def shown(record: Record, *, max_bytes: int = 1_000_000) -> dict[str, Any]:
    """The one frame of v1 that a record is."""
    batch = Batch.decode([record], KEY, first=record.offset, next=record.offset + 1, chat="x", max_bytes=max_bytes)
    [payload] = text_payloads(batch.whole(V1).data)
    frame: dict[str, Any] = json.loads(payload)
    return frame


def meta_of(*, key: bytes | None = None, headers: Sequence[tuple[str, bytes | None]] = (), time_ms: int = 5) -> dict[str, Any]:
    meta: dict[str, Any] = shown(Record(7, value("hi"), time_ms, key, headers))["meta"]
    return meta


def test_key_and_headers_are_text_where_they_are_and_base64_where_not() -> None:
    headers = [("trace", b"abc"), ("raw", b"\xff\x00"), ("none", None), ("trace", "é".encode())]
    meta = meta_of(key=b"ann", headers=headers)
    assert (meta["partition"], meta["offset"], meta["time"], meta["key"]) == (3, 7, 5, "ann")
    assert meta["headers"] == [["trace", "abc"], ["raw", {"base64": "/wA="}], ["none", None], ["trace", "é"]]
    assert "left_out" not in meta
    assert meta_of(key=b"\xff")["key"] == {"base64": "/w=="}
    assert meta_of()["key"] is None


@pytest.mark.parametrize(("time_ms", "told"), [(-1, None), (0, 0), (1, 1)])
def test_a_time_is_told_from_the_first_millisecond_on(time_ms: int, told: int | None) -> None:
    assert meta_of(time_ms=time_ms)["time"] == told
    large = shown(Record(7, value("x" * 100), time_ms), max_bytes=len(json.dumps({"sender": "ann", "text": "x" * 100})) + 60)
    assert (large["meta"]["type"], large["meta"]["time"]) == ("skipped", told)


def test_as_many_headers_are_shown_as_are_allowed_and_of_more_none() -> None:
    many = [("h", b"")] * HEADERS
    assert len(meta_of(headers=many)["headers"]) == HEADERS
    assert meta_of(headers=[*many, ("h", b"")])["headers"] == []
    assert meta_of(headers=[*many, ("h", b"")])["left_out"] == ["headers"]


def test_key_and_headers_together_have_a_limit_and_the_headers_go_first() -> None:
    half = b"x" * (META_BYTES // 2)
    meta = meta_of(key=half, headers=[("h", half)])
    assert (len(meta["key"]), meta["headers"], meta["left_out"]) == (len(half), [], ["headers"])
    fits = META_BYTES - len(half) - len('""') - len('[["h",""]]')
    meta = meta_of(key=half, headers=[("h", b"x" * fits)])
    assert (len(meta["key"]), len(meta["headers"]), "left_out" in meta) == (len(half), 1, False)
    meta = meta_of(key=half, headers=[("h", b"x" * (fits + 1))])
    assert meta["left_out"] == ["headers"]


@pytest.mark.promise("p-left-out")
@pytest.mark.parametrize("below", range(4))
def test_headers_that_a_record_does_not_have_are_not_left_out(below: int) -> None:
    meta = meta_of(key=b"x" * (META_BYTES - len('""') - below))
    assert (len(meta["key"]), meta["headers"], "left_out" in meta) == (META_BYTES - 2 - below, [], False)


def test_a_key_has_a_limit_and_what_is_shown_of_the_record_stays() -> None:
    meta = meta_of(key=b"x" * META_BYTES, headers=[("h", b"v")])
    assert (meta["key"], meta["headers"], meta["left_out"]) == (None, [["h", "v"]], ["key"])


def test_what_is_not_shown_is_noted_for_the_operator_and_what_is_shown_is_not() -> None:
    records = [
        Record(0, value("all"), 5, b"k", [("h", b"v")]),
        Record(1, value("no headers"), 5, b"k", [("h", b"x" * META_BYTES)]),
        Record(2, value("no key"), 5, b"x" * META_BYTES),
        Record(3, value("x" * 900), 5, b"k" * 100),
    ]
    batch = Batch.decode(records, KEY, first=0, next=4, chat="x", max_bytes=1_000)
    noted = {one.offset: [*one.what] for one in batch.shortened}
    assert noted == {1: [LeftOut.HEADERS], 2: [LeftOut.KEY], 3: [LeftOut.KEY, LeftOut.MESSAGE]}
    assert batch.rejected == []


def test_a_message_is_shown_whole_up_to_the_limit_and_without_its_headers_one_byte_below() -> None:
    record = Record(7, value("hi"), 5, b"ann", [("h", b"v" * 50)])
    batch = Batch.decode([record], KEY, first=7, next=8, chat="x", max_bytes=1_000_000)
    [payload] = text_payloads(batch.whole(V1).data)
    assert "left_out" not in shown(record, max_bytes=len(payload))["meta"]
    cut = shown(record, max_bytes=len(payload) - 1)["meta"]
    assert (cut["key"], cut["headers"], cut["left_out"]) == ("ann", [], ["headers"])


def test_a_record_counts_for_all_that_is_in_it() -> None:
    bare = Record(0, b"v" * 10, 5, b"k" * 3)
    assert (bare.size, Record(0, None).size) == (13, 0)
    assert bare._replace(headers=[("name", b"12345"), ("n", None)]).size == 13 + 2 * HEADER_BYTES + 9 + 1
