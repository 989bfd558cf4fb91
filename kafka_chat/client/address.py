"""Where the service is."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, urlsplit

from ..errors import SettingsError


class Address(NamedTuple):
    """Where the service is, taken apart."""

    secure: bool
    host: str
    port: int | None
    prefix: str

    @property
    def origin(self) -> str:
        """`HOST:PORT`, or `HOST` where the scheme says the port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def address_of(url: str) -> Address:
    """Take the service's URL apart; raises `SettingsError` where it is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment or parts.username)
        if usable and parts.hostname and url.isascii() and url.isprintable() and " " not in url:
            return Address(parts.scheme == "https", parts.hostname, parts.port, parts.path.rstrip("/"))
    except ValueError:  # a port that is none, a bracket too few
        pass
    raise SettingsError(f'--url is "{url}"; http://HOST:PORT or https://HOST:PORT is needed')


def quoted(name: str) -> str:
    """Return a name as it stands in a path; one that was typed in no UTF-8 as it was typed, for the service to refuse."""
    return quote(name, safe="", errors="surrogateescape")
