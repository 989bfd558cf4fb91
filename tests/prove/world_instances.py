"""Instances of the service that are ended and begun again, in a trio run in a thread of its own: histories are not async."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import trio

from tests.support.serving import serving
from tests.support.serving import until_ready as ready

if TYPE_CHECKING:
    from kafka_chat.settings.model import Settings

T = TypeVar("T")


class Loop:
    """A trio run in a thread of its own, for who is not async."""

    def __init__(self) -> None:
        self.nursery: trio.Nursery
        self._token: trio.lowlevel.TrioToken
        self._up = threading.Event()
        self._stop: trio.Event
        self._thread = threading.Thread(target=trio.run, args=(self._run,), name="world")

    def start(self) -> None:
        """Begin, and return once it runs."""
        self._thread.start()
        self._up.wait()

    def do(self, act: Callable[..., Awaitable[T]], *args: object) -> T:
        """Have something done there, and return what it returns."""
        return trio.from_thread.run(act, *args, trio_token=self._token)

    def end(self) -> None:
        """Cancel all that runs there, and return once nothing does."""
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        self._token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
        async with trio.open_nursery() as self.nursery:
            self._up.set()
            await self._stop.wait()
            self.nursery.cancel_scope.cancel()


class Instance:
    """One service, which can be ended and started again."""

    def __init__(self, settings: Settings) -> None:
        self.url = ""
        self._settings = settings
        self._stop = trio.Event()
        self._ended = trio.Event()

    async def begin(self, nursery: trio.Nursery) -> None:
        """Serve, and return once clients may be sent there."""
        self._stop, self._ended = trio.Event(), trio.Event()
        await nursery.start(self._run)

    async def end(self) -> None:
        """Drain, and return once that is over."""
        self._stop.set()
        await self._ended.wait()

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with serving(self._settings, check_leaks=False) as server:
            self.url = server.url
            await ready(server)
            task_status.started()
            await self._stop.wait()
        self._ended.set()
