"""The first frame of a client whose cursor is too long for an address; docs/protocol.md, "Ops"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...chat.cursor import parse
from ...errors import RequestError
from ..ports import Disconnect
from .notices import OpRefused, parse_op

if TYPE_CHECKING:
    from ...chat.cursor import ResumeCursor
    from ..ports import Inbox, Sink

FIRST_FRAME_SECONDS = 10.0


async def receive_cursor(sink: Sink, inbox: Inbox) -> ResumeCursor | None:
    """Return the cursor that comes as the first frame; None where it does not, and the connection is closed."""
    with trio.move_on_after(FIRST_FRAME_SECONDS) as waited:
        said = await inbox.receive()
    if waited.cancelled_caught:
        await sink.close(4408, f"cursor=frame: no frame came within {FIRST_FRAME_SECONDS:.0f} s")
        return None
    if isinstance(said, Disconnect):
        return None
    try:
        op = parse_op(said)
        if op.op != "start" or op.cursor is None:
            raise RequestError('cursor=frame: the first frame has to be {"op":"start","cursor":TEXT}', field="cursor")
        return parse(op.cursor)
    except (RequestError, OpRefused) as error:
        await sink.close(4400, str(error))
        return None
