"""Receives the first frame of a client whose cursor is too long for a URL; docs/protocol.md, "Ops"."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import trio

from ...access.decision import Forbidden, Need, Unauthorized, decide
from ...access.identity import PENDING
from ...errors import Overloaded, RequestError
from ..ports import Disconnect
from .live_socket import NO_TOKEN, NOT_ALLOWED, RESTARTS, TRY_LATER, Close, LiveSocket
from .long_cursor import parse_in_turns
from .notices import OpRefused, come_again, control, parse_op

if TYPE_CHECKING:
    from ...access.decision import Identify
    from ...access.identity import Identity
    from ...telemetry.metrics import Telemetry
    from ..ports import Inbox
    from .options import SessionOptions

FIRST_FRAME_SECONDS = 10.0
FIRST_FRAME_NEEDS = Need.READ


class HasOptions(Protocol):
    """Keeps a client's options, and who it is, until its session begins."""

    options: SessionOptions

    @property
    def identity(self) -> Identity:
        """Who it is; `PENDING` where its token comes in the first frame."""

    def identify(self, identity: Identity) -> None:
        """Take the identity that the first frame has brought."""

    @property
    def username(self) -> str:
        """The client's user."""


class FirstFrame(LiveSocket):
    """A v1 client until its first frame arrives. The cursor is stored only in the options of its admission.

    Args:
        admission: the client's.
        peer: its address, for the log.
        identify: None where access is off.
        telemetry: the service's.

    Attributes:
        came: whether the cursor has arrived; if not, the connection is closed once `run` returns.
    """

    __slots__ = ("_admission", "_identify", "_peer", "_receiving", "came")

    def __init__(self, admission: HasOptions, *, peer: str, identify: Identify | None, telemetry: Telemetry) -> None:
        super().__init__(username=admission.username, telemetry=telemetry)
        self.came = False
        self._admission = admission
        self._peer = peer
        self._identify = identify
        if admission.identity is not PENDING:
            self.authorize(admission.identity)
        self._receiving = True

    async def _serve(self, nursery: trio.Nursery) -> None:
        await trio.sleep(FIRST_FRAME_SECONDS)
        if self._receiving:
            self.end(Close(code=4408, reason=f"{self._parameter}=frame: no frame came within {FIRST_FRAME_SECONDS:.0f} s"))
        await trio.sleep_forever()

    async def _receive(self, nursery: trio.Nursery, inbox: Inbox) -> int:
        """Receive only the first frame, and leave later ones in the inbox."""
        said = await inbox.receive()
        if isinstance(said, Disconnect):
            return self._code_of(said)
        await self._hear(nursery, said)
        return 1006

    async def _hear(self, nursery: trio.Nursery, said: str | bytes) -> None:
        self._receiving = False
        try:
            op = parse_op(said)
            if op.op != "start" or (op.cursor is None and self._admission.options.cursor_in_frame):
                shape = '{"op":"start","cursor":TEXT}' if self._parameter == "cursor" else '{"op":"start"}, with a token, a cursor, or both'
                raise RequestError(f"{self._parameter}=frame: the first frame must be {shape}", field=self._parameter)
            await self._take_token(op.token)
            cursor = self._admission.options.cursor if op.cursor is None else await parse_in_turns(op.cursor)
        except Unauthorized as error:
            self.end(Close(code=NO_TOKEN, reason=str(error)))
        except Forbidden as error:
            self.end(Close(code=NOT_ALLOWED, reason=str(error)))
        except (RequestError, OpRefused) as error:
            self.end(Close(code=TRY_LATER if isinstance(error, Overloaded) else 4400, reason=str(error)))
        else:
            self._admission.options = replace(self._admission.options, cursor=cursor, cursor_in_frame=False, start_in_frame=False)
            self.came = True

    async def _take_token(self, token: str | None) -> None:
        """Find out who asks, where the handshake has not told."""
        if self._identify is None:
            return
        if self._admission.identity is not PENDING:
            if token is not None:
                raise RequestError("a token came with the handshake already; send it once", field="token")
            return
        identity = await self._identify(None if token is None else token.encode("utf-8", "replace"), self._peer)
        decide(FIRST_FRAME_NEEDS, identity, user=self._admission.username, chats=self._admission.options.chats)
        self._admission.identify(identity)

    @property
    def _parameter(self) -> str:
        return "cursor" if self._admission.options.cursor_in_frame else "start"

    async def _take_leave(self, close: Close) -> None:
        if close.code == RESTARTS:
            self.sink.offer(control(come_again(None)))
        await trio.lowlevel.checkpoint()
