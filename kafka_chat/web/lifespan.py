"""The app's lifespan: the service runs for as long as the server serves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol, cast

from quart_trio.asgi import TrioASGILifespan

from ..errors import first_error
from ..nursery import open_tasks
from ..process.open_files import connections_limit
from .server.accept_errors import telling_accept_errors
from .server.ends_the_server import ends_the_server
from .server.policy import POLICY, ConnectionPolicy

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, LifespanScope
    from quart_trio import QuartTrio

    from .ports import Service

_log = logging.getLogger("kafka_chat")


class Opening(Protocol):
    """An app that can open its service."""

    service: Service | None
    open_service: Callable[[], AbstractAsyncContextManager[Service]]


class ServiceLifespan(TrioASGILifespan):
    """Opens the service before the port is bound, and ends the process if the service fails later.

    Only one kind of exception ends the server (`ends_the_server`).
    """

    def __init__(self, app: QuartTrio, scope: LifespanScope) -> None:
        super().__init__(app, scope)
        self._state = scope.get("state", {})

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Open the service, serve until the shutdown, close it.

        Raises:
            Exception: the one of `ends_the_server`: the service could not be opened, or has failed.
        """
        stage = "startup"
        opening = cast("Opening", self.app)
        await receive()  # lifespan.startup
        try:
            async with opening.open_service() as service, open_tasks() as nursery:
                settings, telemetry = service.settings, service.telemetry
                policy = ConnectionPolicy(settings.limits, telemetry, connections=connections_limit(settings), held=service)
                telemetry.gauge("connections", lambda: policy.connections.count)
                self._state[POLICY] = policy
                service.watch_shutdown(policy.shutdown.begun)
                for run in (policy.keepalive.run, policy.idle.run, policy.ready_sockets.run):
                    nursery.start_soon(run)
                self.app.nursery = nursery
                opening.service = service
                await self.app.startup()
                await send({"type": "lifespan.startup.complete"})
                stage = "serving"
                with telling_accept_errors(telemetry):
                    await receive()  # lifespan.shutdown
                stage = "shutdown"
                await self.app.shutdown()
        except Exception as error:
            _log.critical("the service failed during %s", stage, exc_info=error)
            raise ends_the_server(stage, str(first_error(error))) from error
        finally:
            opening.service = None
        await send({"type": "lifespan.shutdown.complete"})
