"""Computes the limit of connections from the limit of open files and the memory."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SettingsError

if TYPE_CHECKING:
    from ..settings.model import Settings

SPARE_CONNECTIONS = 32  # beyond the limit, for health, readiness and metrics, and to refuse other requests
OWN_FILES = 200  # for everything else: spare connections, Kafka clients (15 with 8 files and one per broker each), libraries
CONNECTION_BYTES = 32 * 1024  # of an idle connection; an idle WebSocket takes 28 KiB, measured (docs/operations.md)
MEMORY_SHARE = 0.5  # of the machine's memory, for idle connections; the rest is for what is sent to them, and for other processes

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # cgroup v2, v1


def connections_limit(settings: Settings) -> int:
    """Return the limit of connections, after raising this process's soft limit of open files to the hard one.

    Returns:
        `limits.connections`; by default what the limit of open files allows, but no more than fit in half of the memory.

    Raises:
        SettingsError: the limit of open files is too low for `limits.connections`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a sandbox may forbid it; then the soft limit holds
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    wanted = settings.limits.connections
    if soft == resource.RLIM_INFINITY:
        soft = 1 << 20  # Linux's default limit for one process (fs.nr_open)
    possible = soft - OWN_FILES
    if possible < 1:
        raise SettingsError(f"this process may have {soft} files open; at least {OWN_FILES + 1} are needed (ulimit -n)")
    if wanted is not None and wanted > possible:
        raise SettingsError(
            f"limits.connections is {wanted}; at most {possible} is allowed where a process may have {soft} files open (ulimit -n)"
        )
    if wanted is not None:
        return wanted
    return max(1, min(possible, int(memory_bytes() * MEMORY_SHARE / CONNECTION_BYTES / settings.server.workers)))


def memory_bytes() -> int:
    """Return the machine's memory, or the container's limit."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no such file; or `max`, which is not a number
            found.append(int(path.read_text()))
    return min(found)
