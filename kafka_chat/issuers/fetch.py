"""One GET for an issuer's keys, on trio, so that it can be cancelled: no redirects, limits of size and time."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import h11
import trio

JWKS_BYTES = 256 * 1024
FETCH_SECONDS = 10.0
_PIECE = 16 * 1024


class FetchFailed(Exception):
    """The keys could not be fetched; the message is a sentence."""


async def fetch(url: str, ca_file: str | None) -> bytes:
    """Return the content of `url`.

    Args:
        url: `https://`, with a certificate for the host; or `http://` of this machine.
        ca_file: the CA certificates to trust; None: those of the system.

    Raises:
        FetchFailed: it could not be fetched, or the status is not 200.
    """
    try:
        with trio.fail_after(FETCH_SECONDS):
            return await _get(url, ca_file)
    except trio.TooSlowError as error:
        raise FetchFailed(f"no whole answer within {FETCH_SECONDS:g} s") from error
    except (OSError, UnicodeError, trio.BrokenResourceError, h11.ProtocolError) as error:  # UnicodeError: of a host's name
        raise FetchFailed(_why(error)) from error


async def _get(url: str, ca_file: str | None) -> bytes:
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    context = await trio.to_thread.run_sync(_context, ca_file, abandon_on_cancel=True) if secure else None
    stream: trio.abc.Stream = await trio.open_tcp_stream(host, parts.port or (443 if secure else 80))
    try:
        if context is not None:
            stream = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = [("Host", parts.netloc), ("User-Agent", "kafka-chat"), ("Accept", "application/json"), ("Connection", "close")]
        connection = h11.Connection(h11.CLIENT)
        await stream.send_all(connection.send(h11.Request(method="GET", target=target, headers=headers)) or b"")
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
        return await _body(connection, stream)
    finally:
        await trio.aclose_forcefully(stream)


def _context(ca_file: str | None) -> ssl.SSLContext:
    """Return a TLS context. Reading the system's certificates takes 20 ms, so a thread does it."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise FetchFailed(f"ca_file {ca_file} cannot be used: {error.strerror or error}") from error


def _why(error: BaseException) -> str:
    """Return the error of the system or the TLS library, from inside any groups."""
    while True:
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
        if inner is None:
            return str(error) or type(error).__name__
        error = inner


async def _body(connection: h11.Connection, stream: trio.abc.Stream) -> bytes:
    """Return the body of an answer with 200."""
    body = bytearray()
    while len(body) <= JWKS_BYTES:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_PIECE)))
        elif isinstance(event, h11.Response):
            if event.status_code != 200:
                raise FetchFailed(f"the answer is {event.status_code}; 200 is needed, and redirects are not followed")
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body)
        elif not isinstance(event, h11.InformationalResponse):
            raise FetchFailed("the connection ended before the answer")
    raise FetchFailed(f"the answer has over {JWKS_BYTES} bytes")
