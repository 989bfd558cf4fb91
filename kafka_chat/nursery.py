"""The nursery that an `open_x` owns."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def open_tasks() -> AsyncIterator[trio.Nursery]:
    """Yield a nursery for tasks that live as long as the block: they are cancelled when it ends.

    A single error, of a task or of the block, comes out as itself, however deeply these are nested; so a route
    that catches `BrokerError` gets it, and tracebacks stay simple. Several errors come out as their group.
    """
    alone: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        alone = group.exceptions[0]
    if alone is not None:
        raise alone from alone.__cause__
