"""`app`, for hypercorn's own command: `hypercorn -k trio --bind 0.0.0.0:8001 kafka_chat.asgi:app`.

Importing this loads the settings (`config.yaml`, environment) and ends the process with exit code 2 if they are
wrong: hypercorn looks `app` up in the module's dictionary, so it must exist after the import.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING

from .application import create
from .errors import SettingsError
from .kafka.properties_check import properties_problem
from .process.gc_tuning import collect_seldom
from .process.log_output import log_to_stderr
from .process.standard_streams import unblock
from .settings.sources import load_settings, variable
from .telemetry.metrics import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .web.app import ChatApp


def _app(dropped_lines: Callable[[], Mapping[str, int]]) -> ChatApp:
    settings = load_settings(config_file=None, environ=os.environ, flags={}, check_properties=properties_problem)
    if settings.kafka.bootstrap_servers is None and not settings.kafka.embedded:
        raise SettingsError(
            f"no broker: set {variable('kafka.bootstrap_servers')} to HOST:PORT, or {variable('kafka.embedded')} to true for the "
            "embedded broker (or set them in config.yaml)"
        )
    return create(settings, telemetry=Telemetry(dropped_lines=dropped_lines))


atexit.register(unblock("stdout", "stderr"))
log = log_to_stderr("kafka_chat")  # hypercorn logs through its own handler
try:
    app = _app(log.dropped)
except SettingsError as error:
    sys.stderr.write(f"kafka_chat: {error}\n")
    sys.exit(2)
collect_seldom()
