"""Which WebSocket handshakes are correct (RFC 6455 section 4.2.1), and how the others are refused."""

from __future__ import annotations

import os
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.web.server.handshake import is_handshake, joined, refusal_of

KEY = b64encode(bytes(16))
GOOD = ((b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", KEY), (b"sec-websocket-version", b"13"))


def without(*names: bytes) -> list[tuple[bytes, bytes]]:
    return [header for header in GOOD if header[0] not in names]


def test_a_handshake_by_the_book_is_in_order() -> None:
    assert is_handshake(b"GET", GOOD)
    assert refusal_of(GOOD) is None
    assert refusal_of([*GOOD, (b"content-length", b"0")]) is None


@pytest.mark.parametrize("lines", [(b"keep-alive, Upgrade",), (b"keep-alive", b"upgrade"), (b"UPGRADE", b"keep-alive")])
def test_connection_is_a_list_whose_lines_may_come_in_any_order(lines: tuple[bytes, ...]) -> None:
    headers = without(b"connection") + [(b"connection", line) for line in lines]
    assert is_handshake(b"GET", headers)
    assert (b"connection", b", ".join(lines)) in joined(headers)


def test_protocols_on_several_lines_are_one_list() -> None:
    headers = [*GOOD, (b"sec-websocket-protocol", b"kafka-chat.v1"), (b"sec-websocket-protocol", b"other")]
    assert [value for name, value in joined(headers) if name == b"sec-websocket-protocol"] == [b"kafka-chat.v1, other"]


@pytest.mark.parametrize(("method", "missing"), [(b"POST", b""), (b"GET", b"upgrade"), (b"GET", b"connection")])
def test_what_asks_for_no_upgrade_is_no_handshake(method: bytes, missing: bytes) -> None:
    assert not is_handshake(method, without(missing))


@pytest.mark.parametrize("version", [b"8", b"0", b"14", b"13, 8", b"\xff", b""])
def test_another_version_gets_426_and_the_one_that_is_spoken(version: bytes) -> None:
    refusal = refusal_of([*without(b"sec-websocket-version"), (b"sec-websocket-version", version)])
    assert refusal is not None
    assert refusal.status == 426
    assert {(b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")} <= set(refusal.all_headers())


@pytest.mark.parametrize("key", [b"abc", b"", b"\xff" * 24, b64encode(bytes(15)), b64encode(bytes(17)), KEY + b"=", KEY[:-1], b" " + KEY])
@pytest.mark.promise("p-refused-400")
def test_a_key_that_is_not_16_bytes_in_base64_gets_400(key: bytes) -> None:
    refusal = refusal_of([*without(b"sec-websocket-key"), (b"sec-websocket-key", key)])
    assert refusal is not None
    assert refusal.status == 400
    assert "Sec-WebSocket-Key" in refusal.sentence


@pytest.mark.parametrize(
    "headers",
    [
        without(b"sec-websocket-key"),
        without(b"sec-websocket-version"),
        [*GOOD, (b"sec-websocket-key", KEY)],
        [*GOOD, (b"sec-websocket-version", b"13")],
        [*GOOD, (b"content-length", b"5")],
        [*GOOD, (b"transfer-encoding", b"chunked")],
        [*GOOD, (b"sec-websocket-protocol", b"caf\xe9")],
        [*GOOD, (b"sec-websocket-extensions", b"caf\xe9")],
    ],
)
def test_what_is_missing_doubled_or_too_much_gets_400(headers: list[tuple[bytes, bytes]]) -> None:
    refusal = refusal_of(headers)
    assert refusal is not None
    assert refusal.status == 400


@given(st.binary(max_size=40))
def test_a_key_is_taken_exactly_where_it_stands_for_16_bytes(raw: bytes) -> None:
    refusal = refusal_of([*without(b"sec-websocket-key"), (b"sec-websocket-key", b64encode(raw))])
    assert (refusal is None) == (len(raw) == 16)
    assert refusal_of([*without(b"sec-websocket-key"), (b"sec-websocket-key", b64encode(os.urandom(16)))]) is None
