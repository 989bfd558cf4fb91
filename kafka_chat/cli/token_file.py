"""Reads the command line's token from a file, stdin, or the environment; never from an argument, which `ps` shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SettingsError
from .printing import read_stdin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLE = "KAFKA_CHAT_TOKEN"
TOKEN_BYTES = 8192  # the service's limit


def token_source(file: str | None, environ: Mapping[str, str]) -> str | Callable[[], str] | None:
    """Return the token, or a function that reads the current one from the file; None if there is none.

    Args:
        file: the name of the file; `-` for stdin, which is read now; None without one.
        environ: has the token if no file is named.

    Raises:
        SettingsError: there is no token where it should be.
    """
    if file == "-":
        return _checked(read_stdin(), "stdin")
    if file is not None:
        _read(Path(file))  # a bad one is reported at once
        return lambda: _read(Path(file))
    if VARIABLE in environ:
        return _checked(environ[VARIABLE], VARIABLE)
    return None


def token_of(source: str | Callable[[], str] | None) -> str | None:
    """Return the current token."""
    return source() if callable(source) else source


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _checked(file.read(TOKEN_BYTES + 2).decode("ascii", "replace"), str(path))
    except OSError as error:
        raise SettingsError(f"--token-file {path} cannot be read: {error.strerror}") from error


def _checked(text: str, source: str) -> str:
    """Return a token without surrounding whitespace. An error does not quote it."""
    token = text.strip()
    if not token:
        raise SettingsError(f"{source} has no token in it")
    if len(token) > TOKEN_BYTES:
        raise SettingsError(f"what is in {source} is longer than a token: over {TOKEN_BYTES} bytes")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError(f"what is in {source} is not a token")
    return token
