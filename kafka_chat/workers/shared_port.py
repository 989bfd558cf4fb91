"""A TCP port shared by several sockets of ours and no others; the kernel spreads connections over those that listen.

docs/decisions/0005-*.md says why each worker has its own socket.
"""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class SharedPort:
    """Holds the port without listening on it, until the `with` block of `reserved` ends or it is closed."""

    def __init__(self, host: str, port: int) -> None:
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # SO_REUSEPORT is set after bind, so that bind fails on a port that another process shares. SO_REUSEADDR, which bind needs to
        # ignore connections of an earlier process, is removed, so that no process that sets it can bind beside us, either.
        self._reserve = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            self._reserve.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reserve.bind((host, port))
            self._reserve.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._reserve.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except BaseException:
            self._reserve.close()
            raise
        self._address = self._reserve.getsockname()

    @property
    def url(self) -> str:
        """The URL for clients."""
        host, port = self._address[:2]
        return f"http://[{host}]:{port}" if self._family == socket.AF_INET6 else f"http://{host}:{port}"

    def bind(self) -> socket.socket:
        """Return one more socket on the port; it gets connections once it listens."""
        bound = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind(self._address)
        except BaseException:
            bound.close()
            raise
        return bound

    def close(self) -> None:
        """Stop holding the port."""
        self._reserve.close()


@contextmanager
def reserved(host: str, port: int) -> Iterator[SharedPort]:
    """Hold a port.

    Args:
        host: a name or an address of this machine.
        port: 0 picks a free one.

    Raises:
        OSError: it is in use, or not available.
    """
    shared = SharedPort(host, port)
    try:
        yield shared
    finally:
        shared.close()
