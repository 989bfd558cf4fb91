"""The time limits of one connection: by when its client must answer a ping, or begin or finish a request."""

from __future__ import annotations

import enum
from random import uniform
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ...settings.model import Limits

REQUEST_SECONDS = 10.0  # for the head of a request: of the first from the connect on, of a later one from its first byte on


class Due(enum.Enum):
    """What is due or overdue on a connection."""

    NOTHING = enum.auto()
    PING = enum.auto()
    PONG = enum.auto()  # overdue
    BODY = enum.auto()  # overdue, unless it has come and the answer takes long
    REQUEST = enum.auto()  # overdue


class TimeLimits:
    """The time limits of one connection. Nothing waits here: the keepalive calls `due` periodically.

    The connection is serving a request, or waiting for one, or is a WebSocket that is pinged, or is about to end.

    Attributes:
        heard_at: when something last came; 0 if nothing has.
        pinged: whether it is a WebSocket, and no close frame has been appended.
    """

    __slots__ = ("_busy_at", "_idle_seconds", "_idle_since", "_ping_at", "heard_at", "pinged")

    def __init__(self) -> None:
        self.heard_at = 0.0
        self.pinged = False
        self._ping_at = 0.0
        self._busy_at: float | None = None  # when the current request began
        self._idle_since: float | None = None  # since when it waits for a request, or the rest of one, …
        self._idle_seconds = REQUEST_SECONDS  # … and for how long at most

    def expect_request(self, seconds: float = REQUEST_SECONDS) -> None:
        """Start waiting for a request, or the rest of one."""
        self._busy_at, self._idle_since, self._idle_seconds = None, trio.current_time(), seconds

    def begin_request(self) -> None:
        """Note that the head of a request has come."""
        self._busy_at, self._idle_since = trio.current_time(), None

    def expect_nothing(self) -> None:
        """Wait for no request, and ping no more: the connection is about to end."""
        self._idle_since = None
        self.pinged = False

    def begin_pings(self, limits: Limits) -> None:
        """Start pinging: it is a WebSocket, and the 101 is sent."""
        now = trio.current_time()
        self.pinged = True
        self.heard_at = now
        # Spread the pings: after a restart all clients connect in the same instant.
        self._ping_at = now + limits.ping_seconds * uniform(0.5, 1.0)

    def due(self, now: float, limits: Limits, *, acknowledged_at: float, request_seconds: float) -> Due:
        """Return what is due; counts a ping that is due as sent.

        Args:
            now: `trio.current_time()`.
            limits: those of pings and pongs.
            acknowledged_at: `OwedBytes.room_at`.
            request_seconds: for a whole request, from its head on.
        """
        if self.pinged:
            if now - max(self.heard_at, acknowledged_at) >= limits.ping_seconds + limits.pong_seconds:
                return Due.PONG
            if now >= self._ping_at:
                self._ping_at = now + limits.ping_seconds
                return Due.PING
        elif self._busy_at is not None and now - self._busy_at >= request_seconds:
            return Due.BODY
        elif self._idle_since is not None and now - self._idle_since >= self._idle_seconds:
            return Due.REQUEST
        return Due.NOTHING

    def stood_still(self, seconds: float) -> None:
        """Do not count the last `seconds`: the process stood still, and what the client sent is not read yet."""
        self.heard_at = min(self.heard_at + seconds, trio.current_time())
        self._ping_at += seconds
        if self._busy_at is not None:
            self._busy_at += seconds
        if self._idle_since is not None:
            self._idle_since += seconds
