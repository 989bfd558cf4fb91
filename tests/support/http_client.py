"""One HTTP request, answered or timed out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
import trio

from .deadlines import HANG_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response.

    Attributes:
        status: HTTP's.
        headers: names in lower case; of several with the same name, the last.
        body: all of it; what a `RawClient` reads, as far as `content-length` says.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> object:
        """Return what the body says, which has to call itself JSON."""
        kind = self.headers.get("content-type", "")
        assert kind.split(";")[0] == "application/json", f"{self.status} {kind}: {self.body[:200]!r}"
        return json.loads(self.body, parse_constant=no_constant)


def no_constant(name: str) -> object:
    """Refuse NaN and the infinities, which Python's JSON has and JSON has not."""
    raise ValueError(f"{name} is no JSON")


async def http(
    url: str,
    method: str,
    target: str,
    *,
    json_body: object = None,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = HANG_SECONDS,
) -> Answer:
    """Send one request on a new connection.

    Args:
        url: the server, of which host and port count.
        method: such as GET.
        target: path and query, percent-encoded.
        json_body: sent as JSON, with its content type.
        body: sent as it is.
        headers: further ones.
        seconds: for all of it.

    Raises:
        trio.TooSlowError: no whole answer in time.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    all_headers = {"host": parts.netloc, "connection": "close", **{name.lower(): value for name, value in (headers or {}).items()}}
    if json_body is not None:
        body = json.dumps(json_body).encode()
        all_headers.setdefault("content-type", "application/json")
    if body is not None:
        all_headers["content-length"] = str(len(body))
    wire = h11.Connection(h11.CLIENT)
    with trio.fail_after(seconds):
        async with await trio.open_tcp_stream(parts.hostname, parts.port) as stream:
            request = wire.send(h11.Request(method=method, target=target, headers=list(all_headers.items())))
            assert request is not None
            content = wire.send(h11.Data(data=body)) if body else b""
            with contextlib.suppress(trio.BrokenResourceError):  # it may answer, and close, before it has read a body that is too large
                await stream.send_all(request + (content or b"") + (wire.send(h11.EndOfMessage()) or b""))
            return await _read(stream, wire)


async def _read(stream: trio.SocketStream, wire: h11.Connection) -> Answer:
    status, headers, body = 0, {}, b""
    while True:
        event = wire.next_event()
        if event is h11.NEED_DATA:
            wire.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode().lower(): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status=status, headers=headers, body=body)
