"""An issuer's keys are taken from whom its certificate names, within a bound and a time, and whatever else comes is one sentence."""

from __future__ import annotations

import json
import random

import pytest
import trio

from kafka_chat.access.keys import KeyRefused, read_jwks
from kafka_chat.issuers.fetch import JWKS_BYTES, FetchFailed, fetch
from tests.support.deadlines import HANG_SECONDS
from tests.support.issuer import CERTIFICATE, JwksServer, key, open_jwks_server

KEY = key("e1")
GOOD = json.dumps({"keys": [KEY.as_dict(private=False)]}).encode()


async def fetched(server: JwksServer, ca_file: str | None = None) -> bytes:
    with trio.fail_after(HANG_SECONDS):
        return await fetch(server.url, ca_file)


async def test_over_tls_the_certificate_has_to_be_vouched_for():
    async with open_jwks_server(KEY, tls=True) as server:
        assert read_jwks(await fetched(server, str(CERTIFICATE))).knows("e1")
        with pytest.raises(FetchFailed, match="certificate verify failed"):
            await fetched(server)


async def test_over_tls_the_certificate_has_to_name_the_host():
    async with open_jwks_server(KEY, tls=True) as server:
        server.url = server.url.replace("localhost", "127.0.0.1")
        with pytest.raises(FetchFailed, match="IP address mismatch"):
            await fetched(server, str(CERTIFICATE))
        assert server.requests == 0


@pytest.mark.parametrize("name", ["absent", "", "key.pem"])
async def test_a_ca_file_that_is_of_no_use_is_named(name: str):
    async with open_jwks_server(KEY, tls=True) as server:
        file = str(CERTIFICATE.parent / name)
        with pytest.raises(FetchFailed) as failed:
            await fetched(server, file)
    assert str(failed.value).startswith(f"ca_file {file} cannot be used: ")


@pytest.mark.parametrize(
    "url", ["https://..example/", f"https://{'a' * 64}.example/", "http://127.0.0.1:1/", 'http://127.0.0.1:1/"<>\\^`{|}']
)
async def test_an_address_that_leads_nowhere_is_one_sentence(url: str):
    with trio.fail_after(HANG_SECONDS), pytest.raises(FetchFailed) as failed:
        await fetch(url, None)
    assert "\n" not in str(failed.value)


async def test_an_answer_in_chunks_or_up_to_the_end_of_the_connection_is_taken():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD)
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    async with open_jwks_server(KEY) as server:
        for answer in (chunked, early + chunked, b"HTTP/1.0 200 OK\r\n\r\n" + GOOD):
            server.answer = answer
            assert await fetched(server) == GOOD


async def test_the_bound_is_on_the_body():
    async with open_jwks_server(KEY) as server:
        for size in (JWKS_BYTES, JWKS_BYTES + 1):
            server.answer = b"HTTP/1.0 200 OK\r\n\r\n" + b" " * size
            if size <= JWKS_BYTES:
                assert len(await fetched(server)) == size
            else:
                with pytest.raises(FetchFailed, match=f"over {JWKS_BYTES} bytes"):
                    await fetched(server)


async def test_a_head_without_an_end_is_cut_off():
    async with open_jwks_server(KEY) as server:
        server.answer = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000
        with pytest.raises(FetchFailed):
            await fetched(server)


PIECES = [
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200\r\n", b"HTTP/9.9 200 OK\r\n", b"HTTP/1.1 101 Switching\r\n", b"HTTP/1.1 304 No\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 1, 2\r\n", b"Content-Length: 99999999999999999999\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"\r\n", b"\r\n\r\n"),
    *(b"5\r\nhello\r\n", b"fffffffffffffffff\r\n", b"0\r\n\r\n", b"\xff\x00", b"X: \xff\r\n", b": x\r\n", GOOD, b'{"keys":[]}', b"\n"),
]


async def test_whatever_a_server_answers_is_keys_or_one_sentence():
    draw = random.Random(15)
    sentences = []
    async with open_jwks_server(KEY) as server:
        for _ in range(300):
            server.answer = b"".join(draw.choices(PIECES, k=draw.randrange(8)))
            if draw.random() < 0.5:
                server.answer = PIECES[0] + server.answer
            try:
                read_jwks(await fetched(server))
            except (FetchFailed, KeyRefused) as error:
                sentences.append(str(error))
    assert len(sentences) > 100
    assert "" not in sentences
