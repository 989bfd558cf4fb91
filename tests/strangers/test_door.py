"""Whatever the first bytes of a connection are, they get one answer, however they are split into packets, and disturb no other client."""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import pytest
import trio

from kafka_chat.delivery.records.frames import text_header
from kafka_chat.web.server.head_buffer import HEAD_BYTES, HEADER_LINES
from tests.edges.small_app import PATH, Served, serving_small
from tests.support.raw_client import RawClient, handshake_request, open_raw

GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"


def head_of(size: int) -> bytes:
    """Return a request whose head has this many bytes."""
    start = GET + b"X: "
    return start + b"a" * (size - len(start) - 4) + b"\r\n\r\n"


def with_lines(count: int) -> bytes:
    """Return a request with this many header lines."""
    return GET + b"".join(b"X%d: y\r\n" % number for number in range(count - 1)) + b"\r\n"


@asynccontextmanager
async def serving_with_canary() -> AsyncIterator[Served]:
    """Serve; a client that was there before has to be well afterwards, and no connection may have met a bug."""
    async with serving_small() as served, open_raw(served.url, PATH) as canary:
        sink = await served.service.sink()
        yield served
        assert sink.offer(text_header(2) + b"hi")
        assert await canary.next_text() == "hi"
        await canary.ping()
        assert served.service.telemetry.failed == []


async def answers(served: Served, pieces: Sequence[bytes]) -> bytes:
    """Send bytes in pieces, then FIN, and return all that comes back."""
    async with open_raw(served.url) as client:
        for piece in pieces:
            if piece:
                try:
                    await client.send(piece)
                except trio.BrokenResourceError:  # it was answered before it had said all
                    break
                await trio.sleep(0.001)  # so that it is a packet by itself
        with suppress(trio.BrokenResourceError):
            await client.half_close()
        return await client.wait_ended()


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


async def assert_refused(client: RawClient, status: int, sentence: str) -> None:
    response = await client.read_response()
    assert response.status == status
    body = json.loads(response.body)
    assert body["field"] is None
    assert sentence in body["error"]
    await client.wait_ended()


@pytest.mark.parametrize("pieces", [1, 2, 5])
@pytest.mark.parametrize(("size", "status"), [(20_000, 200), (HEAD_BYTES, 200), (HEAD_BYTES + 1, 431), (60_000, 431)])
@pytest.mark.promise("p-head-limits")
async def test_a_head_has_one_limit_whatever_the_packets(size: int, status: int, pieces: int, served: Served):
    whole = head_of(size)
    each = -(-len(whole) // pieces)
    answer = await answers(served, [whole[begin : begin + each] for begin in range(0, len(whole), each)])
    assert statuses(answer) == [status]
    if status != 200:
        assert b'{"error":"the head of a request has more than 32768 bytes; at most 32768 are allowed","field":null}' in answer


@pytest.mark.parametrize(("lines", "status"), [(HEADER_LINES, 200), (HEADER_LINES + 1, 431), (4_000, 431)])
@pytest.mark.promise("p-head-limits")
async def test_a_head_has_at_most_100_lines_of_headers(lines: int, status: int, served: Served):
    assert statuses(await answers(served, [with_lines(lines)])) == [status]


@pytest.mark.promise("p-head-limits")
async def test_what_follows_a_chunked_body_has_the_same_limits(served: Served):
    chunked = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"
    assert statuses(await answers(served, [chunked + b"X: y\r\n\r\n"])) == [200]
    for lines, status in ((HEADER_LINES, 200), (HEADER_LINES + 1, 431), (4_000, 431)):
        trailers = b"".join(b"X%d: y\r\n" % number for number in range(lines)) + b"\r\n"
        assert statuses(await answers(served, [chunked + trailers])) == [status]
        assert statuses(await answers(served, [chunked, trailers])) == [status]
    too_long = await answers(served, [chunked + b"X: " + b"y" * HEAD_BYTES + b"\r\n\r\n"])
    assert statuses(too_long) == [431]
    assert b"what follows the body of a request has more than 32768 bytes" in too_long
    long = chunked.replace(b"\r\n2\r\n", b"\r\n2;" + b"x" * 40_000 + b"\r\n")
    assert statuses(await answers(served, [long])) == [431]
    assert statuses(await answers(served, [long[:20_000], long[20_000:]])) == [431]


@pytest.mark.promise("p-empty-lines")
async def test_empty_lines_before_a_request_are_ignored_however_they_are_cut(served: Served):
    get, post = GET + b"\r\n", b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
    for whole in (b"\r\n" + get, b"\r\n\r\n" + get, post + b"\r\n" + get, get + b"\r\n" + post + b"\r\n\r\n" + get + b"\r\n"):
        requests = whole.count(b"HTTP/1.1")
        assert statuses(await answers(served, [whole])) == [200] * requests
        for cut_at in range(1, 4):
            assert statuses(await answers(served, [whole[:cut_at], whole[cut_at:]])) == [200] * requests
        for cut_at in range(len(post), len(post) + 4):
            assert statuses(await answers(served, [whole[:cut_at], whole[cut_at:]])) == [200] * requests


@pytest.mark.parametrize(
    ("request_bytes", "status", "sentence"),
    [
        (b"nonsense\r\n\r\n", 400, "illegal request line"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", 400, "illegal header line"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", 400, "bad Content-Length"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "Transfer-Encoding"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET + b"\r\n", 400, "both"),
        (b"\x16\x03\x01\x00\xc8\x01" + bytes(200), 400, "illegal request line"),
        (handshake_request(PATH, headers={"Sec-WebSocket-Key": "abc"}), 400, "Sec-WebSocket-Key is 'abc'"),
        (handshake_request(PATH, headers={"Sec-WebSocket-Key": ""}), 400, "Sec-WebSocket-Key"),
        (handshake_request(PATH, headers={"Sec-WebSocket-Version": ""}), 400, "Sec-WebSocket-Version"),
        (handshake_request(PATH, headers={"Content-Length": "5"}) + b"hello", 400, "it has a body"),
        (handshake_request(PATH) + b"\x81\x80abcd", 400, "a frame came before it was answered"),
    ],
)
async def test_what_cannot_be_understood_is_refused_with_a_sentence_and_counted(
    request_bytes: bytes, status: int, sentence: str, served: Served
):
    async with open_raw(served.url) as client:
        await client.send(request_bytes)
        await assert_refused(client, status, sentence)
    assert f'kafka_chat_requests_refused_total{{status="{status}"}}' in served.service.telemetry.metrics().decode()


@pytest.mark.promise("p-refused-426")
async def test_a_handshake_of_version_8_is_told_that_13_is_spoken(served: Served):
    async with open_raw(served.url) as client:
        await client.send(handshake_request(PATH, headers={"Sec-WebSocket-Version": "8"}))
        response = await client.read_response()
        await client.wait_ended()
    assert response.status == 426
    assert response.headers["sec-websocket-version"] == "13"
    assert response.headers["upgrade"] == "websocket"
    assert b"not '8'" in response.body


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving_with_canary() as found:
        yield found


FINE = (
    GET + b"\r\n",
    b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n",
    GET + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world",
    b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX: y\r\n\r\n",
    b"GET http://elsewhere/health HTTP/1.1\r\nHost: x\r\n\r\n",
)
LAST = (
    GET + b"Connection: close\r\n\r\n",
    b"GET /health HTTP/1.0\r\n\r\n",
    GET + b"Connection: close\r\n\r\n" + GET,  # what is behind the last request is nobody's
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n",
    b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    with_lines(HEADER_LINES + 1),
    handshake_request(PATH, headers={"Sec-WebSocket-Key": "abc"}),
    handshake_request(PATH, headers={"Sec-WebSocket-Version": "8"}),
    GET,
    b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello",
)


def cut(dice: random.Random, whole: bytes) -> list[bytes]:
    """Cut bytes at up to five places, of which some may be the same."""
    marks = sorted([0, len(whole), *(dice.randrange(len(whole) + 1) for _ in range(dice.randrange(1, 6)))])
    return [whole[begin:end] for begin, end in pairwise(marks)]


def without_dates(answer: bytes) -> bytes:
    return re.sub(rb"date: [^\r]*", b"", answer)


async def for_each_seed(check: Callable[[random.Random], Awaitable[None]]) -> None:
    """Check with many dice, all at once."""
    async with trio.open_nursery() as nursery:
        for seed in range(25):
            nursery.start_soon(check, random.Random(seed))


async def test_requests_that_are_cut_anywhere_get_the_answers_of_the_whole(served: Served):
    async def check(dice: random.Random) -> None:
        whole = b"".join(dice.choices(FINE, k=dice.randrange(4))) + dice.choice(FINE + LAST)
        expected = without_dates(await answers(served, [whole]))
        assert 500 not in statuses(expected)
        for _ in range(3):
            pieces = cut(dice, whole)
            assert without_dates(await answers(served, pieces)) == expected, (whole, [len(piece) for piece in pieces])

    await for_each_seed(check)


async def test_noise_in_requests_is_answered_alike_however_it_is_cut_and_never_by_500(served: Served):
    async def check(dice: random.Random) -> None:
        noisy = bytearray(b"".join(dice.choices(FINE, k=2)) + dice.choice(FINE + LAST))
        for _ in range(dice.randrange(1, 4)):
            noisy[dice.randrange(len(noisy))] = dice.choice(b"\r\n\x00 :;,/09azAZ\x7f\xff")
        expected = statuses(await answers(served, [bytes(noisy)]))
        assert 500 not in expected
        pieces = cut(dice, bytes(noisy))
        assert statuses(await answers(served, pieces)) == expected, (bytes(noisy), [len(piece) for piece in pieces])

    await for_each_seed(check)
