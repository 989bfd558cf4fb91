"""How many WebSockets the limit of open files leaves."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import SettingsError

if TYPE_CHECKING:
    from ..settings.model import Settings

OWN_FILES = 200  # what the process keeps open beside WebSockets: its Kafka clients, listeners, HTTP requests, libraries


def connections_limit(settings: Settings) -> int:
    """Return how many WebSockets there may be, and raise this process's soft limit of open files to the hard one.

    Returns:
        `limits.connections`, or what the limit of open files leaves.

    Raises:
        SettingsError: the limit of open files is too low for that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a sandbox may forbid it; then the soft limit counts
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    wanted = settings.limits.connections
    if soft == resource.RLIM_INFINITY:
        soft = 1 << 20  # what Linux allows one process where nobody has changed it (fs.nr_open)
    possible = soft - OWN_FILES
    if possible < 1:
        raise SettingsError(f"this process may have {soft} files open; at least {OWN_FILES + 1} are needed (ulimit -n)")
    if wanted is not None and wanted > possible:
        raise SettingsError(
            f"limits.connections is {wanted}; at most {possible} is allowed where a process may have {soft} files open (ulimit -n)"
        )
    return possible if wanted is None else wanted
