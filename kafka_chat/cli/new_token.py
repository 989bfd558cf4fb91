"""`kafka-chat token`: makes a token with a shared secret, for trying things out."""

from __future__ import annotations

import re
import time
import unicodedata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..access.patterns import PatternError, parse_chat_pattern
from ..chat.names import check_username
from ..errors import RequestError, SettingsError
from ..settings.auth_checks import EXTRA
from .printing import check_stdout, print_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from .commands import Commands

NAME = "kafka-chat"  # the default of the issuer and the audience
SECRET_FILE_BYTES = 64 * 1024  # secrets are much shorter
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_ACTIONS = ("read", "send", "create")


def add_token(commands: Commands) -> None:
    """Add `token --user USER`."""
    token = commands.add_parser(
        "token",
        help="make a token, to try things out",
        description="Make a token for an issuer with a secret_file, and print it. Needs no service. Meant for trying things out: "
        "anyone who has the secret can act as any user.",
        epilog="Exit codes: 0 the token is on stdout; 2 wrong flags, or a secret that may not be used. "
        "Example: kafka-chat token --user ann --read 'room*' --for 1h --secret-file secret > ann.token",
    )
    token.add_argument("--user", required=True, metavar="NAME", help="whom it names (sub)")
    for action in _ACTIONS:
        chats = f"a chat to {action}, or a pattern such as 'room*'; repeatable"
        token.add_argument(f"--{action}", action="append", default=[], metavar="CHATS", help=chats)
    token.add_argument("--role", action="append", default=[], metavar="ROLE", help="a role, in the claim roles; repeatable")
    lifetime = "how long it is valid: 30s, 5m, 1h (the default), 1d; services refuse more than auth.max_lifetime_hours"
    token.add_argument("--for", dest="for_", default="1h", metavar="TIME", help=lifetime)
    token.add_argument("--session-for", metavar="TIME", help="how long a session that it opens may last, if not as long (session_exp)")
    token.add_argument("--issuer", default=NAME, metavar="ISS", help=f"auth.issuers.*.issuer of the service ({NAME})")
    token.add_argument("--audience", default=NAME, metavar="AUD", help=f"auth.issuers.*.audience of the service ({NAME})")
    token.add_argument("--secret-file", required=True, type=Path, metavar="FILE", help="the file with the secret, 32 bytes or more")
    token.set_defaults(run=_token)


def _token(parsed: argparse.Namespace) -> int:
    if find_spec(EXTRA) is None:
        raise SettingsError("kafka-chat token needs a library that is not installed: pip install 'kafka-chat[auth]'")
    from ..access.keys import KeyRefused
    from ..access.signing import TokenTooLong, sign

    check_stdout()
    claims, secret = _claims(parsed, time.time()), _secret(parsed.secret_file)
    try:
        token = sign(claims, secret)
    except KeyRefused as error:
        raise SettingsError(f"--secret-file {parsed.secret_file} has no secret that may be used: {error}") from error
    except TokenTooLong as error:
        raise SettingsError(str(error)) from error
    print_line(token)
    return 0


def _claims(parsed: argparse.Namespace, now: float) -> Mapping[str, object]:
    claims: dict[str, object] = {
        "iss": _text("--issuer", parsed.issuer),
        "aud": _text("--audience", parsed.audience),
        "sub": _user(parsed.user),
        "iat": int(now),
        "exp": int(now) + _seconds("--for", parsed.for_),
    }
    if parsed.session_for is not None:
        claims["session_exp"] = int(now) + _seconds("--session-for", parsed.session_for)
    chats = {action: _patterns(f"--{action}", getattr(parsed, action)) for action in _ACTIONS if getattr(parsed, action)}
    if chats:
        claims["chats"] = chats
    if parsed.role:
        claims["roles"] = [_text("--role", role) for role in parsed.role]
    return claims


def _text(flag: str, text: str) -> str:
    if not text or not text.isprintable():  # also false for surrogates, from bytes that are not UTF-8
        raise SettingsError(f"{flag} is empty, or has characters that cannot be printed")
    return text


def _user(name: str) -> str:
    """Return a user's name in NFC, as in tokens."""
    try:
        return check_username(unicodedata.normalize("NFC", name), field="--user")
    except RequestError as error:
        raise SettingsError(str(error)) from error


def _patterns(flag: str, patterns: list[str]) -> list[str]:
    for pattern in patterns:
        try:
            parse_chat_pattern(pattern)
        except PatternError as error:
            raise SettingsError(f"{flag} is {pattern[:80]!r}, which is no pattern: {error}") from error
    return patterns


def _seconds(flag: str, text: str) -> int:
    """Return the seconds of `30s`, `5m`, `1h` or `1d`."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text, re.ASCII)
    if found is None:
        raise SettingsError(f'{flag} is "{text}"; a number with s, m, h or d behind it, such as 30s, 5m, 1h or 1d, is needed')
    return int(found[1]) * _SECONDS[found[2]]


def _secret(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            secret = file.read(SECRET_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"--secret-file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a name with a zero byte
        raise SettingsError("--secret-file is no name of a file") from error
    if len(secret) > SECRET_FILE_BYTES:
        raise SettingsError(f"--secret-file {path} has over {SECRET_FILE_BYTES} bytes; a secret has 32 or some more")
    return secret
