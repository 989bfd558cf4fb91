"""The base of everything that serves an accepted WebSocket: its nursery, and its end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING, ClassVar

import trio

from ...access.identity import EVERYBODY, Identity
from ..ports import Disconnect, Inbox, Sink
from .message_rate import RATE_SECONDS, MessageRate

if TYPE_CHECKING:
    from ...telemetry.metrics import Telemetry

FAREWELL_SECONDS = 1.0
RESTARTS = 1012  # the close code of a client that should reconnect
TRY_LATER = 1013
NO_TOKEN = 4401  # the close code of a client whose token is missing, bad or has expired: a new one helps
NOT_ALLOWED = 4403  # of a client whose token does not allow what it asks for: a new one of the same kind does not help
TALK_FRAMES = 1000  # messages that a client may send in `RATE_SECONDS`


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """A close frame of ours: an RFC 6455 section 7.4 code, and a reason of at most 123 bytes of UTF-8."""

    code: int
    reason: str


EXPIRED = Close(code=NO_TOKEN, reason="the token has expired; connect with a new one")


class LiveSocket(ABC):
    """Two tasks until the client is gone or `end` is called: one serves it, one receives its messages.

    Attributes:
        session_id: for the operator.
        username: the user in the path; "" if it names none.
        identity: who it belongs to, and what that one may do.
        ends_at: when its token ends, on trio's clock; None: never.
        sink: set once the connection is accepted.
        messages: how many were sent so far.
        bytes_sent: the bytes of their frames.
    """

    __slots__ = (
        "_accepted", "_closing", "_failed_by_server", "_scope", "_talk", "_telemetry", "bytes_sent", "ends_at", "identity",
        "messages", "session_id", "sink", "username",
    )  # fmt: skip

    sink: Sink
    too_much: ClassVar[str] = f"over {TALK_FRAMES} messages in {RATE_SECONDS:.0f} s"  # the reason of 1008

    def __init__(self, *, username: str, telemetry: Telemetry) -> None:
        self.session_id = token_hex(4)
        self.username = username
        self.identity = EVERYBODY
        self.ends_at: float | None = None
        self.messages = 0
        self.bytes_sent = 0
        self._telemetry = telemetry
        self._accepted = False
        self._closing: Close | None = None
        self._failed_by_server = False
        self._scope: trio.CancelScope | None = None  # of the nursery, while that is open
        self._talk: MessageRate | None = None

    @property
    def closed_by_service(self) -> bool:
        """Whether its close code is ours: the service ended it, the server because of what the client sent, or a bug."""
        return self._closing is not None or self._failed_by_server

    @property
    def fell_behind(self) -> int:
        """How often it had to wait for a page read."""
        return 0

    def authorize(self, identity: Identity) -> None:
        """Take another identity; who calls this then has the socket watched by `Deadlines`."""
        self.identity = identity
        self.ends_at = None if identity.ends_at is None else trio.current_time() + identity.ends_at - time.time()

    @property
    def deadline(self) -> float | None:
        """When to call `on_deadline`, on trio's clock; None: never."""
        return None if self._closing is not None else self.ends_at

    def on_deadline(self) -> None:
        """End it: the time of its token is over."""
        self.end(EXPIRED)

    def end(self, close: Close) -> None:
        """End it with a close frame, after everything owed."""
        self._closing = self._closing or close
        self._stop()

    def abort(self) -> None:
        """End it at once, without a close frame."""
        self._stop()
        if self._accepted:
            self.sink.abort()

    def hold_nothing(self) -> None:  # noqa: B027 - most hold nothing
        """Stop counting the memory held for it: it has ended."""

    async def run(self, sink: Sink, inbox: Inbox) -> int:
        """Serve until the client is gone or `end` is called; close the connection with 1011 on a bug of ours.

        Args:
            sink: the connection's sink.
            inbox: the connection's inbox.

        Returns:
            The close code: the client's, or ours.
        """
        self.sink = sink
        self._accepted = True
        code = 1006
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                if self._closing is None:
                    nursery.start_soon(self._serve_and_leave, nursery)
                    code = await self._receive(nursery, inbox)
                nursery.cancel_scope.cancel()
            if self._closing is not None:
                await self._take_leave(self._closing)
        except* Exception as bugs:  # noqa: BLE001 - the outer wall of a session: told, answered with 1011, and the neighbours go on
            self._telemetry.session_failed(session_id=self.session_id, error=bugs)
            self._closing = Close(code=1011, reason="internal server error; reconnect")
        finally:
            self.hold_nothing()
        if self._closing is None:
            return code
        await sink.close(self._closing.code, self._closing.reason)
        return self._closing.code

    async def _take_leave(self, close: Close) -> None:
        """Offer the last frames before the close frame. Does not wait: `close` writes them. Nothing else runs for the client now."""
        await trio.lowlevel.checkpoint()

    async def _serve_and_leave(self, nursery: trio.Nursery) -> None:
        """Serve; if the connection is closed, wait a moment for the inbox to report the client's close code."""
        await self._serve(nursery)
        await trio.sleep(FAREWELL_SECONDS)
        nursery.cancel_scope.cancel()

    @abstractmethod
    async def _serve(self, nursery: trio.Nursery) -> None:
        """Deliver, until cancelled. Returns if the connection is closed.

        Args:
            nursery: for further tasks, which are cancelled with this one.
        """

    @abstractmethod
    async def _hear(self, nursery: trio.Nursery, said: str | bytes) -> None:
        """Handle a message of the client. Nothing more is read until this returns.

        Args:
            nursery: for tasks that answer.
            said: the message.
        """

    async def _receive(self, nursery: trio.Nursery, inbox: Inbox) -> int:
        """Receive the client's messages until it is gone; return its close code."""
        while True:
            said = await inbox.receive()
            if isinstance(said, Disconnect):
                return self._code_of(said)
            if self._talks_too_much():
                self.end(Close(code=1008, reason=self.too_much))
            await self._hear(nursery, said)

    def _code_of(self, gone: Disconnect) -> int:
        """Note which side closed it; return the close code."""
        self._failed_by_server = gone.by_service
        return gone.code

    def _stop(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    def _talks_too_much(self) -> bool:
        if self._talk is None:
            self._talk = MessageRate()
        return self._talk.count(trio.current_time()) > TALK_FRAMES
