"""Serves an app with hypercorn, configured for this project."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import hypercorn.trio
import trio
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError

from ...errors import ServiceFailed, first_error
from .install import install

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.typing import Framework

    from ...settings.model import Settings

BACKLOG = 2048  # connections waiting to be accepted: after a restart all clients reconnect at once


def server_config(settings: Settings, *, bound: int | None = None) -> Config:
    """Return hypercorn's configuration for these settings.

    This configures the process. The limits of connections (`web/server/policy.py`) hold under any configuration of hypercorn.

    Args:
        settings: where to listen, how long to drain.
        bound: the descriptor of a bound socket, to listen on instead.
    """
    config = Config()
    host = settings.server.host
    config.bind = [f"[{host}]:{settings.server.port}" if ":" in host else f"{host}:{settings.server.port}"]
    if bound is not None:
        config.bind = [f"fd://{bound}"]
    config.backlog = BACKLOG
    config.alpn_protocols = ["http/1.1"]
    config.graceful_timeout = settings.server.drain_seconds + 1  # sessions end before that by themselves
    config.include_server_header = False
    config.accesslog = None  # telemetry writes a line when a session begins and one when it ends
    config.errorlog = logging.getLogger("kafka_chat.server")
    config.errorlog.setLevel(logging.WARNING)  # below that it repeats our own log lines
    return config


async def serve(
    app: Framework,
    settings: Settings,
    *,
    bound: int | None = None,
    shutdown_trigger: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until `shutdown_trigger` returns, and drain.

    Args:
        app: an ASGI app.
        settings: where to listen, how long to drain.
        bound: the descriptor of a bound socket, to listen on instead; the server takes it over.
        shutdown_trigger: returns when it is time to shut down.
        task_status: gets the URLs, with the actual port, once the port is bound.

    Raises:
        ServiceFailed: the app could not start, or its service has failed.
    """
    install()
    try:
        await hypercorn.trio.serve(app, server_config(settings, bound=bound), shutdown_trigger=shutdown_trigger, task_status=task_status)
    except BaseExceptionGroup as group:
        failures = group.subgroup(LifespanFailureError)
        if failures is None:
            raise
        raise ServiceFailed(str(first_error(failures))) from group
