"""A client of HTTP/2 learns in HTTP/1.1 that it is not supported, or gets HTTP/1.1."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio

from tests.edges.small_app import PATH, serving_small
from tests.edges.test_hypercorn_life import plain_command
from tests.support.raw_client import RawClient, handshake_request, open_raw

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")  # RFC 9113 section 3.4, and empty SETTINGS
LOCALHOST = Path(__file__).parents[1] / "support" / "localhost"
CERTIFICATE = (str(LOCALHOST / "certificate.pem"), str(LOCALHOST / "key.pem"))


def offering(*protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=CERTIFICATE[0])
    context.check_hostname = False
    context.set_alpn_protocols(protocols)
    return context


async def open_tls(port: int, *protocols: str) -> trio.SSLStream[trio.SocketStream]:
    stream = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), offering(*protocols), https_compatible=True)
    await stream.do_handshake()
    return stream


@pytest.mark.parametrize(
    "request_line", [b"PRI * HTTP/2.0", b"GET /health HTTP/2.0", b"HEAD /health HTTP/3.0", b"GET /health HTTP/1.2", b"GET /health HTTP/0.9"]
)
@pytest.mark.promise("p-http-versions")
async def test_another_version_of_http_is_answered_505_with_a_sentence(request_line: bytes):
    async with serving_small() as served, open_raw(served.url) as client:
        await client.send(request_line + b"\r\nHost: x\r\n\r\n" + PREFACE)
        answer = await client.wait_ended()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 505 ")
        if not request_line.startswith(b"HEAD"):
            version = request_line.rpartition(b"/")[2]
            assert body == b'{"error":"this service speaks HTTP/1.1, not HTTP/%b","field":null}' % version
        assert served.service.telemetry.failed == []


@pytest.mark.promise("p-http-versions")
async def test_prior_knowledge_of_http2_gets_505_whatever_follows_it():
    async with serving_small() as served:
        for behind in (b"", bytes(range(256)) * 40, bytes.fromhex("000008060000000000") * 1000):
            async with open_raw(served.url) as client:
                await client.send(PREFACE + behind)
                assert (await client.wait_ended()).startswith(b"HTTP/1.1 505 ")
        assert served.service.telemetry.failed == []


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.promise("p-h2c")
async def test_an_offer_to_upgrade_to_h2c_is_ignored_and_the_connection_lives_on(method: str):
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n"
    body = "Content-Length: 2\r\n\r\nhi" if method == "POST" else "\r\n"
    asked = f"{method} {'/body' if method == 'POST' else '/health'} HTTP/1.1\r\nHost: x\r\n{offer}{body}".encode()
    async with serving_small() as served, open_raw(served.url) as client:
        for _ in range(3):  # as the JDK's HttpClient does
            await client.send(asked)
            assert (await client.read_response()).status == 200
        await client.send(asked * 3)
        assert [(await client.read_response()).status for _ in range(3)] == [200] * 3
        await client.send(handshake_request(PATH))
        assert (await client.read_response()).status == 101


@pytest.mark.parametrize("offered", [("h2", "http/1.1"), ("h2",), ("http/1.1",)])
async def test_tls_agrees_on_http11_alone_whatever_hypercorn_is_configured_to(offered: tuple[str, ...]):
    async with serving_small(certificate=CERTIFICATE, alpn=["h2", "http/1.1"]) as served:
        stream = await open_tls(served.port, *offered)
        assert stream.selected_alpn_protocol() == ("http/1.1" if "http/1.1" in offered else None)
        client = RawClient(stream)  # type: ignore[arg-type]
        await client.send(PREFACE if offered == ("h2",) else b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.read_response()).status == (505 if offered == ("h2",) else 200)
        await trio.aclose_forcefully(stream)


async def test_hypercorns_own_command_with_a_certificate_offers_http11_alone():
    certificate, key = CERTIFICATE
    async with plain_command("--certfile", certificate, "--keyfile", key) as (process, url):
        stream = await open_tls(int(url.rpartition(":")[2]), "h2", "http/1.1")
        assert stream.selected_alpn_protocol() == "http/1.1"
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with trio.fail_after(30):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        await trio.aclose_forcefully(stream)
        process.terminate()
