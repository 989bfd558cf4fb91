"""An app for the plain `hypercorn -k trio` command. `CRASH_SECONDS` in the environment: when its service breaks."""

import os
from contextlib import asynccontextmanager

import trio

from kafka_chat.settings.model import Settings
from kafka_chat.web.server.install import install
from tests.edges.small_app import SmallService, small_app

install()


class DrainingService(SmallService):
    """Closes its sessions when the server goes down."""

    def watch_shutdown(self, wait):
        if not self.waits:
            self.waits.append(wait)
            self.nursery.start_soon(self.drain)

    async def drain(self):
        await self.waits[0]()
        for sink in self.sinks:
            self.nursery.start_soon(sink.close, 1012, "restart")

    @asynccontextmanager
    async def open(self):
        async with super().open(), trio.open_nursery() as self.nursery:
            if "CRASH_SECONDS" in os.environ:
                self.nursery.start_soon(self.crash_after, float(os.environ["CRASH_SECONDS"]))
            yield self
            self.nursery.cancel_scope.cancel()

    async def crash_after(self, seconds):
        await trio.sleep(seconds)
        self.crash.set()


app = small_app(DrainingService(Settings()))
