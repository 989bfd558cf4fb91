"""The limits of connections, and the keys of the objects that server and app share."""

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

POLICY = "kafka_chat.policy"  # in the lifespan's `state`, which the server passes to every connection
CONNECTION = "kafka_chat.connection"  # in a connection's own copy of it, which the app sees as scope["state"]

FIRST_MESSAGE_BYTES = "kafka_chat.first_message_bytes"  # in a WebSocket's scope: the limit of its first message
FAILED_BY_SERVER = "kafka_chat.failed_by_server"  # in a WebSocket's last event: whether its close code is ours


class OpenConnections:
    """Counts all connections of the process, WebSockets or not.

    Args:
        limit: how many are served.

    Attributes:
        count: how many there are.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0

    @property
    def are_too_many(self) -> bool:
        """Whether the latest one exceeds the limit: it gets a refusal, or an answer about health."""
        return self.count > self.limit

    @property
    def are_far_too_many(self) -> bool:
        """Whether the latest one is closed without an answer."""
        return self.count > self.limit + SPARE_CONNECTIONS


class Held(Protocol):
    """Counts the bytes that clients make us hold."""

    def owe(self, size: int) -> None:
        """Count `size` more bytes; fewer if it is negative."""

    @property
    def owes_too_much(self) -> bool:
        """Whether they are so many that no client may add to them."""


class ConnectionPolicy:
    """The limits of every connection, and the objects that all connections share.

    A copy of the scope refers to this same object, even a deep copy (hypercorn's ProxyFixMiddleware makes them).

    Attributes:
        limits: those of the settings.
        telemetry: records connections that fail, or that we abort.
        keepalive: checks all connections; the lifespan runs it.
        idle: the connections that wait for a request; the lifespan runs it.
        held: counts the bytes of requests and messages that are incomplete, or not taken by the app yet.
        ready_sockets: schedules reads and writes; the lifespan runs it.
        connections: counts them.
        shutdown: reports the server's shutdown.
        request_seconds: the time limit for a whole request, from its head on.
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
    """Stands in for `Held` when the app is not ours."""

    owes_too_much = False

    def owe(self, size: int) -> None:
        """Do nothing."""


def policy_in(state: Mapping[str, object]) -> ConnectionPolicy:
    """Return the policy that the app's lifespan put into `state`; the defaults if it is not our app."""
    policy = state.get(POLICY)
    return policy if isinstance(policy, ConnectionPolicy) else _default_policy()


@cache
def _default_policy() -> ConnectionPolicy:
    return ConnectionPolicy(Limits(), Telemetry())
