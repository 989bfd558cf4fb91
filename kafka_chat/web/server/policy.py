"""The limits of connections, and the keys under which server and app find each other's objects."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Protocol, Self

from ...process.open_files import SPARE_CONNECTIONS
from ...settings.model import Limits
from ...telemetry.metrics import Telemetry
from .idle import IdleConnections
from .keepalive import Keepalive
from .ready_sockets import ReadySockets
from .shutdown import Shutdown

if TYPE_CHECKING:
    from collections.abc import Mapping

POLICY = "kafka_chat.policy"  # in the lifespan's `state`, which the server hands to every connection
CONNECTION = "kafka_chat.connection"  # in a connection's own copy of it, which the app sees as scope["state"]

FIRST_MESSAGE_BYTES = "kafka_chat.first_message_bytes"  # in a WebSocket's scope: what its first message may have, in place of the limit
FAILED_BY_SERVER = "kafka_chat.failed_by_server"  # in a WebSocket's last event: whether its close code is ours


class OpenConnections:
    """All connections of the process, WebSockets or not, and how many there may be.

    Args:
        limit: of those that are served.

    Attributes:
        count: how many there are.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0

    @property
    def are_too_many(self) -> bool:
        """Whether there are more than are served: the last one gets a refusal, or an answer about health."""
        return self.count > self.limit

    @property
    def are_far_too_many(self) -> bool:
        """Whether there are so many that the last one is closed without an answer."""
        return self.count > self.limit + SPARE_CONNECTIONS


class Held(Protocol):
    """Counts what clients make us hold."""

    def owe(self, size: int) -> None:
        """Count so many bytes more; fewer where it is negative."""

    @property
    def owes_too_much(self) -> bool:
        """Whether that is so much that nobody may add to it."""


class ConnectionPolicy:
    """The limits of every connection, who is told of their end, and who looks after their life.

    Shared and alive, so a copy of the scope (hypercorn's ProxyFixMiddleware makes deep ones) holds this very object.

    Attributes:
        limits: of the settings.
        telemetry: is told of connections that fail, or that we cut.
        keepalive: looks at all connections; the lifespan runs it.
        idle: those that wait for a request; run likewise.
        held: counts what has come of requests and messages and is not whole, or not taken yet.
        ready_sockets: says whose turn it is to read or write; run likewise.
        connections: counts them.
        shutdown: when the server begins to go down.
        request_seconds: for a client to send a whole request, once its head is there.
    """

    __slots__ = ("connections", "held", "idle", "keepalive", "limits", "ready_sockets", "request_seconds", "shutdown", "telemetry")

    def __init__(self, limits: Limits, telemetry: Telemetry, *, connections: int = sys.maxsize, held: Held | None = None) -> None:
        self.connections = OpenConnections(connections)
        self.limits = limits
        self.telemetry = telemetry
        self.keepalive = Keepalive(limits)
        self.held = held or Uncounted()
        self.shutdown = Shutdown()
        self.idle = IdleConnections(self.shutdown)
        self.ready_sockets = ReadySockets()
        self.request_seconds = 30.0

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self


class Uncounted:
    """Where nobody counts: the app is not ours."""

    owes_too_much = False

    def owe(self, size: int) -> None:
        """Count nothing."""


def policy_in(state: Mapping[str, object]) -> ConnectionPolicy:
    """Return the policy that the app's lifespan left in `state`; the defaults, if it is not our app."""
    policy = state.get(POLICY)
    return policy if isinstance(policy, ConnectionPolicy) else _default_policy()


@cache
def _default_policy() -> ConnectionPolicy:
    return ConnectionPolicy(Limits(), Telemetry())
