"""The application: the routes of web/, with the service behind them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .assembly import open_service
from .process.open_files import connections_limit
from .web.app import ChatApp, create_app
from .web.server.install import install

if TYPE_CHECKING:
    from .settings.model import Settings
    from .telemetry.metrics import Telemetry

install()  # before any server runs, hypercorn's own command included


def create(settings: Settings, *, telemetry: Telemetry | None = None) -> ChatApp:
    """Return the application; its service lives as long as the server's lifespan.

    Args:
        settings: the settings of the service.
        telemetry: the telemetry to use instead of a new one.

    Raises:
        SettingsError: the limit of open files is too low for `limits.connections`.
    """
    connections_limit(settings)  # checked now, so that it is an error of the settings and not of a running service
    app = create_app(settings)
    app.open_service = partial(open_service, settings, telemetry=telemetry)
    return app
