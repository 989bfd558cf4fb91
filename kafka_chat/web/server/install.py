"""Replaces hypercorn's classes with ours."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

import hypercorn.logging
import hypercorn.protocol.h11
import hypercorn.trio.run
import hypercorn.trio.tcp_server
from hypercorn.config import Config

from .access_log import PlainAtoms
from .connection import ChatTCPServer
from .http11 import ChatH11Protocol
from .websocket_stream import ChatWSStream

if TYPE_CHECKING:
    from ssl import SSLContext

_create_ssl_context = Config.create_ssl_context


@wraps(_create_ssl_context)
def _speaking_http11(self: Config) -> SSLContext | None:
    """Offer only HTTP/1.1 in the TLS handshake, whatever is configured: hypercorn's own command offers HTTP/2 by default."""
    context = _create_ssl_context(self)
    if context is not None:
        context.set_alpn_protocols(["http/1.1"])
    return context


def install() -> None:
    """Make hypercorn use these classes in this process. Idempotent."""
    hypercorn.logging.AccessLogAtoms = PlainAtoms  # type: ignore[misc]
    hypercorn.trio.run.TCPServer = ChatTCPServer  # type: ignore[attr-defined]
    hypercorn.trio.tcp_server.ProtocolWrapper = ChatH11Protocol  # type: ignore[attr-defined,assignment]
    hypercorn.protocol.h11.WSStream = ChatWSStream  # type: ignore[attr-defined]
    Config.create_ssl_context = _speaking_http11  # type: ignore[method-assign]
