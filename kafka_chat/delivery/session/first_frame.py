"""Receives the first frame of a client whose cursor is too long for a URL; docs/protocol.md, "Ops"."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import trio

from ...errors import RequestError
from ..ports import Disconnect
from .live_socket import RESTARTS, Close, LiveSocket
from .long_cursor import parse_in_turns
from .notices import OpRefused, come_again, control, parse_op

if TYPE_CHECKING:
    from ...telemetry.metrics import Telemetry
    from ..ports import Inbox
    from .options import SessionOptions

FIRST_FRAME_SECONDS = 10.0


class HasOptions(Protocol):
    """Keeps a client's options until its session begins."""

    options: SessionOptions

    @property
    def username(self) -> str:
        """The client's user."""


class FirstFrame(LiveSocket):
    """A v1 client until its cursor arrives, which is stored in the options of its admission and nowhere else.

    Attributes:
        came: whether the cursor has arrived; if not, the connection is closed once `run` returns.
    """

    __slots__ = ("_admission", "_receiving", "came")

    def __init__(self, admission: HasOptions, *, telemetry: Telemetry) -> None:
        super().__init__(username=admission.username, telemetry=telemetry)
        self.came = False
        self._admission = admission
        self._receiving = True

    async def _serve(self, nursery: trio.Nursery) -> None:
        await trio.sleep(FIRST_FRAME_SECONDS)
        if self._receiving:
            self.end(Close(code=4408, reason=f"cursor=frame: no frame came within {FIRST_FRAME_SECONDS:.0f} s"))
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
            if op.op != "start" or op.cursor is None:
                raise RequestError('cursor=frame: the first frame must be {"op":"start","cursor":TEXT}', field="cursor")
            cursor = await parse_in_turns(op.cursor)
        except (RequestError, OpRefused) as error:
            self.end(Close(code=4400, reason=str(error)))
            return
        self._admission.options = replace(self._admission.options, cursor=cursor, cursor_in_frame=False)
        self.came = True

    async def _take_leave(self, close: Close) -> None:
        if close.code == RESTARTS:
            self.sink.offer(control(come_again(None)))
        await trio.lowlevel.checkpoint()
