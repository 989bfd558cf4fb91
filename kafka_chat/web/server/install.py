"""Puts our classes in the place of hypercorn's."""

from __future__ import annotations

import hypercorn.protocol.h2
import hypercorn.protocol.h11
import hypercorn.trio.run

from .connection import ChatTCPServer
from .http2 import ChatStreamBuffer
from .websocket_stream import ChatWSStream


def install() -> None:
    """Let hypercorn serve with these classes from now on, in this process. Idempotent."""
    hypercorn.trio.run.TCPServer = ChatTCPServer  # type: ignore[attr-defined]
    hypercorn.protocol.h11.WSStream = ChatWSStream  # type: ignore[attr-defined]
    hypercorn.protocol.h2.WSStream = ChatWSStream  # type: ignore[attr-defined]
    hypercorn.protocol.h2.StreamBuffer = ChatStreamBuffer  # type: ignore[misc]
