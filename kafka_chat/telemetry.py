"""Every event that an operator may see, once: its log line and its metric."""

from __future__ import annotations

from collections.abc import Callable

from .chat.message import Reject
from .delivery.seams import Lost


class Telemetry:
    """The events of one service."""

    def session_opened(self, *, session_id: str, username: str, peer: str) -> None: ...

    def session_closed(self, *, session_id: str, username: str, seconds: float, messages: int, bytes_sent: int, code: int, fell_behind: int) -> None: ...

    def session_failed(self, *, session_id: str, error: BaseException) -> None:
        """A bug in a session (close code 1011): logged with its traceback."""

    def client_text_discarded(self) -> None: ...

    def delivered(self, *, messages: int, size: int) -> None:
        """So many messages, of so many bytes in all, were written to sockets. Called once a walk, not once a client."""

    def record_rejected(self, *, topic: str, partition: int, offset: int, reason: Reject) -> None: ...

    def position_lost(self, *, topic: str, partition: int, asked: int, first_left: int, cause: Lost) -> None: ...

    def page_read(self, *, topic: str, partition: int, size: int) -> None: ...

    def page_read_failed(self, *, topic: str, partition: int, error: Exception) -> None: ...

    def connection_failed(self, *, peer: str, error: BaseException) -> None:
        """A connection ended by an error that is not the client's leaving; the process goes on."""

    def connection_aborted(self, *, peer: str, reason: str) -> None:
        """A connection was cut by us: `write_seconds`, `pong_seconds`, `too_large`, `drain`."""

    def brokers_away(self, *, reason: str) -> None: ...

    def brokers_back(self) -> None: ...

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Show `read()` as the gauge `name` whenever metrics are asked for."""
