"""Identifies clients by their tokens, for routes, ops and first frames."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..access.claims import ClaimRules, session_end
from ..access.decision import KeysNotKnown, Unauthorized
from ..access.identity import Identity
from ..access.issuer import Issuer, Issuers
from ..access.patterns import parse_chat_pattern, parse_user_pattern
from ..access.rights import NOTHING, Rights
from ..access.token_refused import KeysUnknown, Reason, TokenRefused
from ..access.token_shape import parse_token
from ..nursery import open_tasks
from ..readiness import Readiness
from ..settings.auth_checks import KEYS_DEFAULT, SECRET_DEFAULT
from .key_source import key_source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from ..access.issuer import VerifiedToken
    from ..access.patterns import UserPattern
    from ..settings.model import AuthSettings, EveryoneSettings, IssuerSettings
    from ..telemetry.metrics import Telemetry
    from .key_source import KeySource


class Authority:
    """Knows the issuers, and the rights of their tokens.

    Args:
        auth: the settings.
        telemetry: records refused tokens.

    Attributes:
        sources: issuer's name -> the source of its keys.
    """

    def __init__(self, auth: AuthSettings, telemetry: Telemetry) -> None:
        issuers = {name: Issuer(name, _rules(auth, one), algorithms_of(one)) for name, one in auth.issuers.items()}
        self._issuers = Issuers(list(issuers.values()))
        self.sources: Mapping[str, KeySource] = {
            name: key_source(issuer, auth.issuers[name], telemetry) for name, issuer in issuers.items()
        }
        self._telemetry = telemetry
        self._everyone = _rights(auth.everyone)
        self._roles = {name: (_rights(role), tuple(map(parse_user_pattern, role.act_as))) for name, role in auth.roles.items()}
        self._nobody = Identity(user=None, rights=Rights(read=tuple(map(parse_chat_pattern, auth.anonymous))))

    def readiness(self) -> Readiness:
        """Return whether tokens can be verified. An issuer with unknown keys does not affect the others' users."""
        unknown = [
            f"the keys of auth.issuers.{name} are not known: {source.problem}" for name, source in self.sources.items() if source.problem
        ]
        ready = len(unknown) < len(self.sources)
        return Readiness(ready=ready, problems=[] if ready else unknown, notices=unknown if ready else [])

    async def identify(self, token: bytes | None, peer: str) -> Identity:
        """Return a client's identity.

        Waits only if the token's key is unknown, for the issuer's newest keys, and two seconds at most.

        Args:
            token: the client's token; None without one.
            peer: the client's address, for the log.

        Raises:
            Unauthorized: the token is not valid, or no longer. The log says why.
            KeysNotKnown: its issuer's keys have not been read yet.
        """
        if token is None:
            return self._nobody
        try:
            return await self._verified(token)
        except TokenRefused as refused:
            self._telemetry.auth_refused(issuer=refused.issuer, reason=refused.reason.value, kid=refused.kid, peer=peer, why=str(refused))
            raise Unauthorized from None  # the cause's traceback would keep the token
        except KeysUnknown:
            raise KeysNotKnown from None

    async def _verified(self, token: bytes) -> Identity:
        now = time.time()
        known = self._issuers.verified(token, now)
        if known is None:
            shape = parse_token(token)
            issuer = self._issuers.issuer_of(shape)
            if issuer.keys is None or not issuer.keys.knows(shape.kid):
                await self.sources[issuer.name].look_for_newer()
                now = time.time()
            known = self._issuers.verify(shape, now)
        return self._identity(known, now)

    def _identity(self, token: VerifiedToken, now: float) -> Identity:
        claims, rights = token.claims, token.claims.rights + self._everyone
        act_as: list[UserPattern] = []
        for role in claims.roles:
            allowed, others = self._roles.get(role, (NOTHING, ()))
            rights += allowed
            act_as += others
        ends_at = session_end(claims, token.issuer.rules, now)
        if ends_at <= now:
            raise TokenRefused(Reason.TIME, "session_exp has passed", issuer=token.issuer.name, kid=token.key.kid)
        return Identity(
            user=claims.user,
            rights=rights,
            act_as=tuple(act_as),
            ends_at=ends_at,
            issuer=token.issuer.name,
            issued_at=claims.issued_at,
            token_id=claims.token_id,
        )


@asynccontextmanager
async def open_authority(auth: AuthSettings, telemetry: Telemetry) -> AsyncIterator[Authority]:
    """Keep the issuers' keys up to date while the block runs."""
    authority = Authority(auth, telemetry)
    async with open_tasks() as tasks:
        for source in authority.sources.values():
            tasks.start_soon(source.run)
        yield authority


def _rules(auth: AuthSettings, issuer: IssuerSettings) -> ClaimRules:
    roles = issuer.roles_claim
    return ClaimRules(
        issuer=issuer.issuer or "",
        audience=issuer.audience or "",
        users=_users(issuer.users or ("*",)),
        user_claim=issuer.user_claim,
        chats_claim=issuer.chats_claim,
        roles_claim=(roles,) if isinstance(roles, str) else roles or (),
        leeway_seconds=auth.leeway_seconds,
        max_lifetime_seconds=auth.max_lifetime_hours * 3600,
    )


def _users(patterns: Iterable[str]) -> Sequence[UserPattern]:
    return tuple(map(parse_user_pattern, patterns))


def algorithms_of(issuer: IssuerSettings) -> Sequence[str]:
    """Return the algorithms that an issuer may sign with."""
    return issuer.algorithms or (SECRET_DEFAULT if issuer.secret_file is not None else KEYS_DEFAULT)


def _rights(allowed: EveryoneSettings) -> Rights:
    return Rights(**{field: tuple(map(parse_chat_pattern, getattr(allowed, field))) for field in ("read", "send", "create")})
