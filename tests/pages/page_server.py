"""A web site of a few pages, of another origin than the service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio


@asynccontextmanager
async def open_site(pages: Mapping[str, str]) -> AsyncIterator[str]:
    """Serve pages on loopback while the block runs.

    Args:
        pages: path -> HTML.

    Yields:
        The site's URL.
    """

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                piece = await stream.receive_some()
                if not piece:
                    return
                request += piece
            path = request.split(b" ", 2)[1].decode()
            status = "200 OK" if path in pages else "404 Not Found"
            body = pages.get(path, "").encode()
            head = (
                f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            await stream.send_all(head.encode() + body)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()
