"""Reads the claims of a verified token: the user, the rights, the times."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..chat.names import check_username
from ..errors import RequestError
from .patterns import PatternError
from .rights import NOTHING, Rights
from .token_refused import Reason, TokenRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .patterns import UserPattern


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRules:
    """The rules for the claims of an issuer's tokens.

    Attributes:
        issuer: must equal `iss`.
        audience: must be in `aud`.
        users: the users that the issuer may name.
        user_claim: the claim that names the user.
        chats_claim: the claim that names chats.
        roles_claim: the path of the claim that names roles; empty: this issuer grants none.
        leeway_seconds: the largest difference between the issuer's clock and ours.
        max_lifetime_seconds: how long a token may be valid.
    """

    issuer: str
    audience: str
    users: Sequence[UserPattern]
    user_claim: str = "sub"
    chats_claim: str = "chats"
    roles_claim: Sequence[str] = ()
    leeway_seconds: float = 30.0
    max_lifetime_seconds: float = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The well-formed claims of a token. Times are Unix times in seconds.

    Attributes:
        user: the user, in NFC.
        rights: the rights in the token itself.
        roles: names of roles, whose rights are in the settings.
        issued_at: `iat`.
        not_before: `nbf`, or `iat`.
        expires_at: `exp`.
        session_expires_at: the end of a session that the token opens; None: `expires_at`.
        token_id: `jti`; None if there is none.
    """

    user: str
    rights: Rights
    roles: tuple[str, ...]
    issued_at: float
    not_before: float
    expires_at: float
    session_expires_at: float | None
    token_id: str | None


def read_claims(claims: Mapping[str, object], rules: ClaimRules) -> Claims:
    """Return the claims of a verified payload. `check_time` checks its times at each use.

    Raises:
        TokenRefused: `ISSUER`, `AUDIENCE`, `TIME` or `CLAIMS`.
    """
    if claims.get("iss") != rules.issuer:
        raise TokenRefused(Reason.ISSUER, "iss is another issuer's")
    if not is_for(claims, rules.audience):
        raise TokenRefused(Reason.AUDIENCE, "aud does not have the audience of the settings")
    issued_at, expires_at = _time(claims, "iat"), _time(claims, "exp")
    if expires_at - issued_at > rules.max_lifetime_seconds:
        raise TokenRefused(Reason.TIME, "the token is valid for longer than auth.max_lifetime_hours")
    user = _user(claims.get(rules.user_claim), rules)
    token_id = claims.get("jti")
    if token_id is not None and not isinstance(token_id, str):
        raise TokenRefused(Reason.CLAIMS, "jti is not a string")
    return Claims(
        user=user,
        rights=_rights(claims.get(rules.chats_claim)),
        roles=_roles(claims, rules.roles_claim),
        issued_at=issued_at,
        not_before=_time(claims, "nbf") if "nbf" in claims else issued_at,
        expires_at=expires_at,
        session_expires_at=_time(claims, "session_exp") if "session_exp" in claims else None,
        token_id=token_id,
    )


def is_for(claims: Mapping[str, object], audience: str) -> bool:
    """Return whether `aud` is an audience, or a list with it."""
    named = claims.get("aud")
    return named == audience or (isinstance(named, list) and audience in named)


def check_time(claims: Claims, rules: ClaimRules, now: float) -> None:
    """Check that a token is valid at `now`, a Unix time.

    Raises:
        TokenRefused: `TIME`.
    """
    if now >= claims.expires_at + rules.leeway_seconds:
        raise TokenRefused(Reason.TIME, "the token has expired")
    if max(claims.issued_at, claims.not_before) > now + rules.leeway_seconds:
        raise TokenRefused(Reason.TIME, "the token is from the future")


def session_end(claims: Claims, rules: ClaimRules, now: float) -> float:
    """Return the end of a session that this token opens now: a Unix time."""
    if claims.session_expires_at is None:
        return claims.expires_at + rules.leeway_seconds
    return min(claims.session_expires_at, now + rules.max_lifetime_seconds)


def _time(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRefused(Reason.TIME, f"{name} is not a number")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise TokenRefused(Reason.TIME, f"{name} is not a finite number")
    return seconds


def _user(value: object, rules: ClaimRules) -> str:
    if not isinstance(value, str):
        raise TokenRefused(Reason.CLAIMS, f"{rules.user_claim} is not a string")
    try:
        user = check_username(value, field=rules.user_claim)
    except RequestError as error:
        raise TokenRefused(Reason.CLAIMS, str(error)) from error
    if not unicodedata.is_normalized("NFC", value):
        raise TokenRefused(Reason.CLAIMS, f"{rules.user_claim} is not in Unicode NFC")
    if not any(pattern.covers(user) for pattern in rules.users):
        raise TokenRefused(Reason.ISSUER, "the issuer may not speak for this user")
    return user


def _rights(claimed: object) -> Rights:
    if claimed is None:
        return NOTHING
    try:
        return Rights.parse(claimed)
    except PatternError as error:
        raise TokenRefused(Reason.CLAIMS, str(error)) from error


def _roles(claims: Mapping[str, object], path: Sequence[str]) -> tuple[str, ...]:
    """Return the roles; empty if the claim is missing. A single string is one role, as some issuers write it."""
    if not path:
        return ()
    value: object = claims
    for name in path:
        if not isinstance(value, dict):
            raise TokenRefused(Reason.CLAIMS, "the path to the roles leads through what is not an object")
        value = value.get(name)
        if value is None:
            return ()
    roles = [value] if isinstance(value, str) else value
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise TokenRefused(Reason.CLAIMS, "the roles are not a list of strings")
    return tuple(roles)
