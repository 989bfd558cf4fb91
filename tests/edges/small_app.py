"""The smallest app that the server can carry: a route that admits, and sessions that a test writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import hypercorn.protocol.h11
import hypercorn.trio
import hypercorn.trio.run
import hypercorn.trio.tcp_server
import trio
from hypercorn.config import Config
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.tcp_server import TCPServer
from quart import request, websocket
from quart_trio import QuartTrio

from kafka_chat.delivery.ports import Disconnect, Inbox, Sink
from kafka_chat.settings.model import Limits, ServerSettings, Settings
from kafka_chat.telemetry.metrics import Telemetry
from kafka_chat.web.lifespan import ServiceLifespan
from kafka_chat.web.ports import ADMISSION
from kafka_chat.web.server.install import install
from kafka_chat.web.server.policy import POLICY, ConnectionPolicy
from kafka_chat.web.server.serve import server_config
from kafka_chat.web.streams.websocket import ChatWebsocketConnection
from tests.support.deadlines import HANG_SECONDS

PATH = "/receive-message/client/ann"


class HeardTelemetry(Telemetry):
    """Keeps what connections tell."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[BaseException] = []
        self.aborted: list[str] = []

    def connection_failed(self, *, peer: str, error: BaseException) -> None:
        super().connection_failed(peer=peer, error=error)
        self.failed.append(error)

    def connection_aborted(self, *, peer: str, reason: str) -> None:
        super().connection_aborted(peer=peer, reason=reason)
        self.aborted.append(reason)


@dataclass
class PartitionName:
    """An admission."""

    username: str
    service: SmallService

    def __enter__(self) -> None:
        self.service.names += 1

    def __exit__(self, *exc_info: object) -> None:
        self.service.names -= 1
        self.service.changed()


Session = Callable[["SmallService", Callable[[], Awaitable[Sink]], Inbox], Awaitable[None]]


async def receive_until_gone(service: SmallService, accept: Callable[[], Awaitable[Sink]], inbox: Inbox) -> None:
    """Be a session that says nothing by itself: tests write through `service.sinks`."""
    service.has(await accept())
    while not isinstance(said := await inbox.receive(), Disconnect):
        service.said.append(said)
    service.disconnects.append(said.code)


@dataclass
class SmallService:
    """A service without Kafka."""

    settings: Settings
    session: Session = receive_until_gone
    telemetry: HeardTelemetry = field(default_factory=HeardTelemetry)
    names: int = 0
    owed: int = 0
    owes_too_much: bool = False
    sinks: list[Sink] = field(default_factory=list)
    said: list[str | bytes] = field(default_factory=list)
    disconnects: list[int] = field(default_factory=list)
    waits: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    crash: trio.Event = field(default_factory=trio.Event)
    _news: trio.Event = field(default_factory=trio.Event)

    def admit(self, username: str) -> PartitionName:
        return PartitionName(username, self)

    def watch_shutdown(self, wait: Callable[[], Awaitable[None]]) -> None:
        self.waits.append(wait)

    async def run_session(self, admission: PartitionName, *, accept: Callable[[], Awaitable[Sink]], inbox: Inbox, peer: str) -> None:
        await self.session(self, accept, inbox)

    @contextmanager
    def owing(self, size: int) -> Iterator[None]:
        self.owed += size
        try:
            yield
        finally:
            self.owed -= size

    def owe(self, size: int) -> None:
        self.owed += size

    def has(self, sink: Sink) -> None:
        """Keep the sink of a session for the test."""
        self.sinks.append(sink)
        self.changed()

    def changed(self) -> None:
        """Something happened that a test may wait for."""
        self._news.set()
        self._news = trio.Event()

    async def until(self, condition: Callable[[], bool], *, seconds: float = HANG_SECONDS) -> None:
        """Wait until something holds."""
        with trio.fail_after(seconds):
            while not condition():
                await self._news.wait()

    async def empty(self, *, seconds: float = HANG_SECONDS) -> None:
        """Wait until no session is left."""
        await self.until(lambda: self.names == 0, seconds=seconds)

    async def sink(self) -> Sink:
        """Wait until there is one more sink, and return it."""
        await self.until(lambda: bool(self.sinks))
        return self.sinks.pop()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[SmallService]:
        async def fail() -> None:
            await self.crash.wait()
            raise RuntimeError("the tail is broken")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            yield self
            nursery.cancel_scope.cancel()


class SmallApp(QuartTrio):
    asgi_websocket_class = ChatWebsocketConnection
    asgi_lifespan_class = ServiceLifespan
    service: SmallService | None = None
    policy: ConnectionPolicy

    async def asgi_app(self, scope, receive, send):
        if "state" in scope and POLICY in scope["state"]:
            self.policy = scope["state"][POLICY]
        await super().asgi_app(scope, receive, send)


def small_app(service: SmallService) -> SmallApp:
    """Return an app with `/receive-message/client/<username>`, `/refused` and a few HTTP routes."""
    app = SmallApp("small")
    app.open_service = service.open

    @app.websocket("/receive-message/client/<username>")
    async def receive(username: str) -> None:
        websocket.scope[ADMISSION] = app.service.admit(username)

    @app.websocket("/refused")
    async def refused():
        return {"error": "no place now", "field": None}, 503, {"Retry-After": "5"}

    @app.websocket("/broken")
    async def broken():
        websocket.scope[ADMISSION] = app.service.admit("ann")
        raise RuntimeError("a bug in a route")

    @app.get("/health")
    async def health():
        return {"status": "Consumer is running"}

    @app.post("/body")
    async def body():
        return {"size": len(await request.get_data())}

    @app.get("/large")
    async def large():
        return b"x" * 5_000_000

    return app


@dataclass
class Served:
    url: str
    service: SmallService
    app: SmallApp
    down: trio.Event

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])


@asynccontextmanager
async def serving_small(
    *,
    limits: Limits | None = None,
    session: Session = receive_until_gone,
    certificate: tuple[str, str] | None = None,
    alpn: list[str] | None = None,
    drain_seconds: float = 0.5,
    ours: bool = True,
) -> AsyncIterator[Served]:
    """Serve the small app while the block runs; where not `ours`, by hypercorn as it is, for want of another server."""
    settings = Settings(server=ServerSettings(port=0, drain_seconds=drain_seconds), limits=limits or Limits())
    service = SmallService(settings, session)
    app = small_app(service)
    config = server_config(settings)
    if certificate is not None:
        config.certfile, config.keyfile = certificate
        config.alpn_protocols = alpn or config.alpn_protocols
    with nullcontext() if ours else plain_hypercorn():
        if ours:
            install()
        async with _served(app, config, service) as served:
            yield served


@contextmanager
def plain_hypercorn() -> Iterator[None]:
    """Give hypercorn its own classes back, while the block runs."""
    places = ((hypercorn.trio.run, "TCPServer"), (hypercorn.trio.tcp_server, "ProtocolWrapper"), (hypercorn.protocol.h11, "WSStream"))
    installed = [getattr(*place) for place in places]
    for (module, name), own in zip(places, (TCPServer, ProtocolWrapper, WSStream), strict=True):
        setattr(module, name, own)
    try:
        yield
    finally:
        for (module, name), ours in zip(places, installed, strict=True):
            setattr(module, name, ours)


@asynccontextmanager
async def _served(app: SmallApp, config: Config, service: SmallService) -> AsyncIterator[Served]:
    down = trio.Event()
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(partial(hypercorn.trio.serve, app, config, shutdown_trigger=down.wait))
        yield Served(urls[0], service, app, down)
        down.set()
