"""A way to a port that takes time, as networks do."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PIECE = 1 << 16  # bytes


@asynccontextmanager
async def open_far(port: int, *, to: int, round_trip_seconds: float) -> AsyncIterator[None]:
    """Listen on a port of loopback for as long as the block lasts, and hand connections on to another one.

    Args:
        port: where to listen.
        to: where they go.
        round_trip_seconds: how long bytes take there and back; a connection takes so long to be made.
    """

    async def hand_on(client: trio.SocketStream) -> None:
        await trio.sleep(round_trip_seconds)
        async with client, await trio.open_tcp_stream("127.0.0.1", to) as server, trio.open_nursery() as nursery:
            nursery.start_soon(_pass, client, server, round_trip_seconds / 2)
            nursery.start_soon(_pass, server, client, round_trip_seconds / 2)

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, hand_on, port, host="127.0.0.1"))
        yield
        nursery.cancel_scope.cancel()


async def _pass(source: trio.SocketStream, target: trio.SocketStream, seconds: float) -> None:
    """Hand bytes on, each piece so many seconds after it came, however many are on their way."""
    put, take = trio.open_memory_channel[tuple[float, bytes]](1 << 20)

    async def deliver() -> None:
        try:
            async for due, data in take:
                await trio.sleep_until(due)
                await target.send_all(data)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await source.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        async with put:
            try:
                while data := await source.receive_some(_PIECE):
                    put.send_nowait((trio.current_time() + seconds, data))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await target.aclose()
