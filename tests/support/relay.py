"""A relay to a service that can be interrupted like a network."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import trio

_PIECE = 1 << 16  # bytes


class Relay:
    """Connections are handed on to a service.

    Attributes:
        url: `http://127.0.0.1:port`.
        service: the service's, for connections to come.
    """

    def __init__(self, service: str) -> None:
        self.url = ""
        self.service = service
        self._connections: set[trio.CancelScope] = set()
        self._whole = trio.Event()
        self._whole.set()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    def break_off(self) -> None:
        """Forward nothing any more, silently."""
        self._whole = trio.Event()

    def mend(self) -> None:
        """Forward new connections; old ones are unknown here."""
        self.cut()
        self._whole.set()

    def cut(self) -> None:
        """End all connections, both sides by an RST."""
        for connection in self._connections:
            connection.cancel()

    async def hand_on(self, client: trio.SocketStream) -> None:
        """Serve one connection."""
        with trio.CancelScope() as connection:
            self._connections.add(connection)
            try:
                await self._whole.wait()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                async with client, await trio.open_tcp_stream("127.0.0.1", urlsplit(self.service).port or 80) as service:
                    service.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._pass, client, service)
                        nursery.start_soon(self._pass, service, client)
            except OSError:
                return  # nobody listens there: the client has got an RST
            finally:
                self._connections.remove(connection)

    async def _pass(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        try:
            while data := await source.receive_some(_PIECE):
                await self._whole.wait()
                await target.send_all(data)
            await target.send_eof()
        except trio.BrokenResourceError:
            await target.aclose()  # what came to one side by an RST goes to the other as one
        except trio.ClosedResourceError:
            return  # by the other direction, which has met one


@asynccontextmanager
async def open_relay(service: str) -> AsyncIterator[Relay]:
    """Listen on loopback while the block runs."""
    relay = Relay(service)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, relay.hand_on, 0, host="127.0.0.1"))
        relay.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        yield relay
        nursery.cancel_scope.cancel()
