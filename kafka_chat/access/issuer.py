"""One who signs tokens: its rules, its keys of now, and the tokens of it that were verified lately."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .claims import check_time, is_for, read_claims
from .signature import verify
from .token_refused import KeysUnknown, Reason, TokenRefused
from .token_shape import parse_token

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .claims import ClaimRules, Claims
    from .keys import KeySet, VerifyingKey
    from .token_shape import UnverifiedToken

TOKENS_KEPT = 10_000  # verified ones, some 1 KiB each with their rights


class Issuer:
    """Knows whether a token is its own.

    Attributes:
        name: in the settings.
        rules: what its tokens have to say.
        algorithms: that it may sign with.
        keys: those of now; None: they have not been read yet. Replaced as a whole, from outside.
    """

    def __init__(self, name: str, rules: ClaimRules, algorithms: Collection[str]) -> None:
        self.name = name
        self.rules = rules
        self.algorithms = frozenset(algorithms)
        self.keys: KeySet | None = None

    def verify(self, token: UnverifiedToken) -> VerifiedToken:
        """Return what a token of this issuer says.

        Raises:
            TokenRefused: it is not its, or not well-formed, or it may not speak for this user.
            KeysUnknown: its keys have not been read yet.
        """
        try:
            if token.algorithm not in self.algorithms:
                raise TokenRefused(Reason.ALGORITHM, "alg is not one of the issuer's algorithms")
            if self.keys is None:
                raise KeysUnknown(f"the keys of auth.issuers.{self.name} have not been read yet")
            key = self.keys.find(token.kid, token.algorithm)
            verify(token, key)
            return VerifiedToken(issuer=self, key=key, claims=read_claims(token.claims, self.rules))
        except TokenRefused as refused:
            refused.issuer, refused.kid = self.name, token.kid
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """A token whose signature and claims were right when it was looked at.

    Attributes:
        issuer: who signed it.
        key: with which key.
        claims: what it says.
    """

    issuer: Issuer
    key: VerifyingKey
    claims: Claims


class Issuers:
    """All who sign tokens. Verifies each token once, and asks for its time and its key each time."""

    def __init__(self, issuers: Sequence[Issuer]) -> None:
        self._by_iss: dict[str, list[Issuer]] = {}
        for issuer in issuers:
            self._by_iss.setdefault(issuer.rules.issuer, []).append(issuer)
        self._verified: dict[bytes, VerifiedToken] = {}  # by SHA-256; the oldest first

    def issuer_of(self, token: UnverifiedToken) -> Issuer:
        """Return whose token it claims to be.

        Raises:
            TokenRefused: nobody's.
        """
        claimed = token.claims.get("iss")
        issuers = self._by_iss.get(claimed, ()) if isinstance(claimed, str) else ()
        if not issuers:
            raise TokenRefused(Reason.ISSUER, "iss is none of auth.issuers", kid=token.kid)
        # Several of one `iss` differ in their audience; where a token has both of them, who knows its key is meant, else the first.
        meant = [issuer for issuer in issuers if is_for(token.claims, issuer.rules.audience)] or issuers
        return next((issuer for issuer in meant if issuer.keys is not None and token.kid and issuer.keys.knows(token.kid)), meant[0])

    def verified(self, text: bytes, now: float) -> VerifiedToken | None:
        """Return what a token says that was verified before, with a key that is still its issuer's; None: it has to be verified.

        Raises:
            TokenRefused: it has expired.
        """
        digest = hashlib.sha256(text).digest()
        known = self._verified.get(digest)
        if known is None:
            return None
        if known.issuer.keys is None or known.key not in known.issuer.keys:
            del self._verified[digest]
            return None
        self._check_time(known, now)
        return known

    def verify(self, token: UnverifiedToken, now: float) -> VerifiedToken:
        """Verify a token and remember it.

        Raises:
            TokenRefused: nobody may use it, at least not now.
            KeysUnknown: its issuer's keys have not been read yet.
        """
        found = self.issuer_of(token).verify(token)
        self._check_time(found, now)
        self._verified[hashlib.sha256(token.text).digest()] = found
        if len(self._verified) > TOKENS_KEPT:
            del self._verified[next(iter(self._verified))]
        return found

    def read(self, text: bytes, now: float) -> VerifiedToken:
        """Return what a token says, verified now or before, with the keys that are known. Raises as `verify` does."""
        return self.verified(text, now) or self.verify(parse_token(text), now)

    def _check_time(self, token: VerifiedToken, now: float) -> None:
        try:
            check_time(token.claims, token.issuer.rules, now)
        except TokenRefused as refused:
            refused.issuer, refused.kid = token.issuer.name, token.key.kid
            raise
