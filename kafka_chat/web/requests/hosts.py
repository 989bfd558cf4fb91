"""Checks the host names of requests, against DNS rebinding: pages whose own host name resolves to us."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from quart import has_websocket_context, request, websocket

from ...errors import RequestError
from .raw_path import hosts_in_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class HostRefused(RequestError):
    """403: the service does not answer to this host name."""

    status = 403


class Hosts:
    """The host names allowed in the header `Host`.

    IP addresses and `localhost` are always allowed: an attacker cannot make them resolve elsewhere, and health checks use them. A
    request without the header does not come from a browser.

    Args:
        allowed: names without a port, in lower case, or `*` for any.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._any = "*" in allowed
        self._allowed = frozenset(allowed)

    async def check_current(self) -> None:
        """Raise `HostRefused` if the current request or handshake names another host."""
        if not self._any:
            current = websocket if has_websocket_context() else request
            self.check([*current.headers.getlist("Host"), *hosts_in_target(current.scope)])

    def check(self, hosts: Iterable[str]) -> None:
        """Raise `HostRefused` for another host.

        Args:
            hosts: the values of `Host`, or the host in the target, which overrides them (RFC 9112 section 3.2.2).
        """
        for host in hosts:
            if not self._any and not self._is_allowed(_without_port(host)):
                raise HostRefused(f"the host {host[:100]!a} is not served here (access.hosts)")

    def _is_allowed(self, name: str) -> bool:
        if name in self._allowed or name == "localhost":
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


def _without_port(host: str) -> str:
    """Return a host in the form of the settings: `Chat.Example.:8001` is `chat.example`."""
    name, colon, port = host.strip().rpartition(":")
    if not colon or not (port == "" or (port.isascii() and port.isdigit())):
        name = host.strip()
    return name.lower().removesuffix(".")
