"""The time limits of one connection: until when its client must answer a ping, or begin or finish a request."""

from __future__ import annotations

import enum
from random import uniform
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ...settings.model import Limits

REQUEST_SECONDS = 10.0  # for the head of the first request to come in whole, and for that of a later one, from its first byte


class Due(enum.Enum):
    """What has to be done with a connection now."""

    NOTHING = enum.auto()
    PING = enum.auto()
    PONG = enum.auto()  # is missing
    BODY = enum.auto()  # of a request is missing, unless it has come and the answer takes long
    REQUEST = enum.auto()  # is missing


class TimeLimits:
    """One connection's; nothing is waited for here: `due` is asked now and then.

    Either a request is served, or one is awaited, or the connection is a WebSocket that is pinged, or it is about to end.

    Attributes:
        heard_at: when something came last; 0: nothing has.
        pinged: it is a WebSocket, and no close frame has been appended.
    """

    __slots__ = ("_busy_at", "_idle_seconds", "_idle_since", "_ping_at", "heard_at", "pinged")

    def __init__(self) -> None:
        self.heard_at = 0.0
        self.pinged = False
        self._ping_at = 0.0
        self._busy_at: float | None = None  # when the request that is being served began
        self._idle_since: float | None = None  # it waits for a request, or the rest of one, since then …
        self._idle_seconds = REQUEST_SECONDS  # … and for so long at most

    def expect_request(self, seconds: float = REQUEST_SECONDS) -> None:
        """A request is awaited, or the rest of one."""
        self._busy_at, self._idle_since, self._idle_seconds = None, trio.current_time(), seconds

    def begin_request(self) -> None:
        """A request is there: its head."""
        self._busy_at, self._idle_since = trio.current_time(), None

    def expect_nothing(self) -> None:
        """The connection is about to end."""
        self._idle_since = None

    def begin_pings(self, limits: Limits) -> None:
        """It is a WebSocket, and its client has been told."""
        now = trio.current_time()
        self.pinged = True
        self.heard_at = now
        # Clients that came in the same instant, all of them after a restart, are not pinged in the same instant.
        self._ping_at = now + limits.ping_seconds * uniform(0.5, 1.0)

    def due(self, now: float, limits: Limits, *, acknowledged_at: float, request_seconds: float) -> Due:
        """Return what is due; a ping that is due is taken to be sent.

        Args:
            now: `trio.current_time()`.
            limits: of pings and pongs.
            acknowledged_at: when the client's machine last took something that had waited for room.
            request_seconds: for a whole request, once its head is there.
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
        """Do not count the last so many seconds: the process stood still in them, and what the client said is not read yet."""
        self.heard_at = min(self.heard_at + seconds, trio.current_time())
        self._ping_at += seconds
        if self._busy_at is not None:
            self._busy_at += seconds
        if self._idle_since is not None:
            self._idle_since += seconds
