"""The first frame of a client whose cursor is too long for an address; docs/protocol.md, "Ops"."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import trio

from ...chat.resume_cursor import CursorParser
from ...errors import RequestError
from ...loop_sharing import Turn
from ..ports import Disconnect
from .notices import OpRefused, parse_op

if TYPE_CHECKING:
    from ..ports import Inbox, Sink
    from .options import SessionOptions

FIRST_FRAME_SECONDS = 10.0


class HasOptions(Protocol):
    """What keeps what a client asks for until its session begins."""

    options: SessionOptions


async def receive_cursor(admission: HasOptions, sink: Sink, inbox: Inbox) -> bool:
    """Put the cursor that comes as the first frame into the options of `admission`, which alone refers to it then.

    Returns:
        False: it does not come, and the connection is closed.
    """
    with trio.move_on_after(FIRST_FRAME_SECONDS) as waited:
        said = await inbox.receive()
    if waited.cancelled_caught:
        await sink.close(4408, f"cursor=frame: no frame came within {FIRST_FRAME_SECONDS:.0f} s")
        return False
    if isinstance(said, Disconnect):
        return False
    try:
        op = parse_op(said)
        if op.op != "start" or op.cursor is None:
            raise RequestError('cursor=frame: the first frame has to be {"op":"start","cursor":TEXT}', field="cursor")
        parser = CursorParser(op.cursor)
        turn = Turn()
        for _ in parser:
            await turn.share()
    except (RequestError, OpRefused) as error:
        await sink.close(4400, str(error))
        return False
    admission.options = replace(admission.options, cursor=parser.cursor, cursor_in_frame=False)
    return True
