"""Where the command line has its token from: a file, stdin, or the environment; never an argument, which every `ps` shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SettingsError
from .printing import read_stdin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLE = "KAFKA_CHAT_TOKEN"
TOKEN_BYTES = 8192  # of any token that the service takes


def token_source(file: str | None, environ: Mapping[str, str]) -> str | Callable[[], str] | None:
    """Return the token, or how to read the one that is in the file by then; None: there is none.

    Args:
        file: its name; `-` for stdin, which is read now; None for none.
        environ: has the token where no file is named.

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
    """Return the token now."""
    return source() if callable(source) else source


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _checked(file.read(TOKEN_BYTES + 2).decode("ascii", "replace"), str(path))
    except OSError as error:
        raise SettingsError(f"--token-file {path} cannot be read: {error.strerror}") from error


def _checked(text: str, source: str) -> str:
    """Return a token without the spaces around it. An error does not quote it."""
    token = text.strip()
    if not token:
        raise SettingsError(f"{source} has no token in it")
    if len(token) > TOKEN_BYTES:
        raise SettingsError(f"what is in {source} is longer than a token: over {TOKEN_BYTES} bytes")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError(f"what is in {source} is not a token")
    return token
