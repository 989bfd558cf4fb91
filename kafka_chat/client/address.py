"""The service's URL."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, urlsplit

from ..errors import SettingsError


class Address(NamedTuple):
    """The parts of the service's URL."""

    secure: bool
    host: str
    port: int | None
    prefix: str

    @property
    def origin(self) -> str:
        """`HOST:PORT`, or `HOST` for the scheme's default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def address_of(url: str) -> Address:
    """Parse the service's URL; raise `SettingsError` if it is invalid."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment or parts.username)
        if usable and parts.hostname and url.isascii() and url.isprintable() and " " not in url:
            return Address(parts.scheme == "https", parts.hostname, parts.port, parts.path.rstrip("/"))
    except ValueError:  # an invalid port, a missing bracket
        pass
    raise SettingsError(f'--url is "{url}"; http://HOST:PORT or https://HOST:PORT is needed')


def quoted(name: str) -> str:
    """Return a name percent-encoded for a path; bytes that are not UTF-8 are kept for the service to refuse."""
    return quote(name, safe="", errors="surrogateescape")
