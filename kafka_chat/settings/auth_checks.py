"""Checks of the section `auth`."""

from __future__ import annotations

import re
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from ..access.patterns import PatternError, parse_chat_pattern, parse_user_pattern
from ..errors import SettingsError
from .model import AuthSettings, HistorySettings, IssuerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from .model import Settings

EXTRA = "joserfc"  # installed by the extra `kafka-chat[auth]`
SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
KEY_ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448",
)  # fmt: skip
KEYS_DEFAULT, SECRET_DEFAULT = ("RS256", "ES256", "EdDSA"), ("HS256",)

_NAME = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*")
_COOKIE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # a token of RFC 9110
_WAYS = ("jwks_url", "keys_file", "secret_file")


def check_auth(settings: Settings, source: Callable[[str], str]) -> None:
    """Check the issuers and their rights.

    Args:
        settings: settings whose values have the right types.
        source: returns the source of a key's value.

    Raises:
        SettingsError: a value is wrong, is missing, or contradicts another one.
    """
    auth = settings.auth
    if not auth.issuers:
        for field in msgspec.structs.fields(AuthSettings):
            key = f"auth.{field.name}"
            if getattr(auth, field.name) != getattr(AuthSettings(), field.name):
                raise SettingsError(f"{source(key)}: {key} is set, but there is nobody in auth.issuers whose tokens it could be about")
        return
    if find_spec(EXTRA) is None:
        raise SettingsError(f"{source('auth.issuers')}: auth.issuers needs a library that is not installed: pip install 'kafka-chat[auth]'")
    for name, issuer in auth.issuers.items():
        _check_issuer(name, issuer, source, alone=len(auth.issuers) == 1)
    _check_distinct(auth, source)
    _check_rights(auth, source)
    if auth.cookie is not None:
        if not _COOKIE.fullmatch(auth.cookie):
            raise SettingsError(
                f"{source('auth.cookie')}: auth.cookie is not the name of a cookie; letters, digits, - and _ are safe in one"
            )
        if "*" in settings.access.origins:
            raise SettingsError(
                f"{source('auth.cookie')}: auth.cookie needs access.origins to list the pages that may use the service; with * any page "
                "could use it in the name of whoever looks at it"
            )
    if settings.history.cache != HistorySettings().cache:  # the default may be in a file, as in ours
        raise SettingsError(
            f"{source('history.cache')}: history.cache is {settings.history.cache}, but with auth.issuers no page may be kept without "
            "asking again: each answer is private, no-cache"
        )


def _check_issuer(name: str, issuer: IssuerSettings, source: Callable[[str], str], *, alone: bool) -> None:
    key = f"auth.issuers.{name}"
    where = source(key)

    def refuse(field: str, sentence: str) -> SettingsError:
        full = f"{key}.{field}"
        return SettingsError(f"{source(full) if getattr(issuer, field, None) is not None else where}: {full} {sentence}")

    if not _NAME.fullmatch(name):
        raise SettingsError(f"{where}: {key} is not a name; a-z 0-9 and single _ between them are needed")
    for field in ("issuer", "audience"):
        if not getattr(issuer, field):
            raise refuse(field, "is missing; tokens are checked for it")
    ways = [way for way in _WAYS if getattr(issuer, way) is not None]
    if len(ways) != 1:
        named = " and ".join(ways) or "none"
        raise SettingsError(f"{where}: {key} needs one of {', '.join(_WAYS)}, and has {named}")
    if issuer.jwks_url is not None and not _is_safe(issuer.jwks_url):
        raise refuse("jwks_url", "has to begin with https:// (http:// only of this machine itself), without a user, a password or a #")
    if issuer.ca_file is not None and (issuer.jwks_url is None or not issuer.jwks_url.startswith("https:")):
        raise refuse("ca_file", "is of use only with a jwks_url that begins with https://")
    allowed = SECRET_ALGORITHMS if issuer.secret_file is not None else KEY_ALGORITHMS
    for algorithm in issuer.algorithms or ():
        if algorithm not in allowed:
            raise refuse("algorithms", f"may have {', '.join(allowed)} with {ways[0]}")
    if issuer.algorithms == ():
        raise refuse("algorithms", "is empty; no token could be valid")
    if issuer.users is None and not alone:
        raise refuse("users", 'is missing; where there are several issuers, each says whom it may speak for, such as ["partner-*"]')
    _check_patterns(f"{key}.users", issuer.users or (), source, parse_user_pattern)
    for field in ("user_claim", "chats_claim"):
        if not getattr(issuer, field):
            raise refuse(field, "is empty; the name of a claim is needed")
    if issuer.roles_claim is not None and not all(_path(issuer.roles_claim)):
        raise refuse("roles_claim", "is empty; the name of a claim is needed, or a path such as [realm_access, roles]")


def _check_distinct(auth: AuthSettings, source: Callable[[str], str]) -> None:
    names: dict[tuple[str | None, str | None], str] = {}
    for name, issuer in auth.issuers.items():
        other = names.setdefault((issuer.issuer, issuer.audience), name)
        if other != name:
            raise SettingsError(
                f"{source(f'auth.issuers.{name}')}: auth.issuers.{name} has the issuer and the audience of auth.issuers.{other}; "
                "tokens of the two could not be told apart"
            )


def _check_rights(auth: AuthSettings, source: Callable[[str], str]) -> None:
    for field in ("read", "send", "create"):
        _check_patterns(f"auth.everyone.{field}", getattr(auth.everyone, field), source, parse_chat_pattern)
        for name, role in auth.roles.items():
            _check_patterns(f"auth.roles.{name}.{field}", getattr(role, field), source, parse_chat_pattern)
    for name, role in auth.roles.items():
        _check_patterns(f"auth.roles.{name}.act_as", role.act_as, source, parse_user_pattern)
    _check_patterns("auth.anonymous", auth.anonymous, source, parse_chat_pattern)
    if auth.roles and not any(issuer.roles_claim for issuer in auth.issuers.values()):
        raise SettingsError(f"{source('auth.roles')}: auth.roles is set, but no issuer has a roles_claim that could name a role")


def _check_patterns(key: str, patterns: tuple[str, ...], source: Callable[[str], str], parse: Callable[[object], object]) -> None:
    for pattern in patterns:
        try:
            parse(pattern)
        except PatternError as error:
            raise SettingsError(f"{source(key)}: {key} has {pattern[:80]!r}, which is no pattern: {error}") from error


def _path(claim: str | tuple[str, ...]) -> tuple[str, ...]:
    return (claim,) if isinstance(claim, str) else claim or ("",)


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.username is not None or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
            return False
        parts.hostname.encode("idna")  # raises if a label is empty or longer than 63 characters
        return parts.port != 0 and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname)))
    except ValueError:  # an invalid port, a missing bracket, no name of a host
        return False


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
