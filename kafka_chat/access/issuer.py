"""An issuer of tokens: its rules, its current keys, and its recently verified tokens."""

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

TOKENS_KEPT = 10_000  # verified tokens, about 1 KiB each with their rights


class Issuer:
    """Verifies its own tokens.

    Attributes:
        name: its name in the settings.
        rules: the rules for its claims.
        algorithms: the algorithms that it may sign with.
        keys: its current keys; None: not read yet. Replaced as a whole, from outside.
    """

    def __init__(self, name: str, rules: ClaimRules, algorithms: Collection[str]) -> None:
        self.name = name
        self.rules = rules
        self.algorithms = frozenset(algorithms)
        self.keys: KeySet | None = None

    def verify(self, token: UnverifiedToken) -> VerifiedToken:
        """Verify a token of this issuer.

        Raises:
            TokenRefused: it is not this issuer's, or not well-formed, or the issuer may not name this user.
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
    """A token whose signature and claims were right when it was verified.

    Attributes:
        issuer: the issuer that signed it.
        key: the key that it was signed with.
        claims: its claims.
    """

    issuer: Issuer
    key: VerifyingKey
    claims: Claims


class Issuers:
    """All issuers. Verifies each token once, and checks its times and its key at each use."""

    def __init__(self, issuers: Sequence[Issuer]) -> None:
        self._by_iss: dict[str, list[Issuer]] = {}
        for issuer in issuers:
            self._by_iss.setdefault(issuer.rules.issuer, []).append(issuer)
        self._verified: dict[bytes, VerifiedToken] = {}  # by SHA-256; the oldest first

    def issuer_of(self, token: UnverifiedToken) -> Issuer:
        """Return the issuer that a token claims to be of.

        Raises:
            TokenRefused: there is no such issuer.
        """
        claimed = token.claims.get("iss")
        issuers = self._by_iss.get(claimed, ()) if isinstance(claimed, str) else ()
        if not issuers:
            raise TokenRefused(Reason.ISSUER, "iss is none of auth.issuers", kid=token.kid)
        # Issuers with the same `iss` differ in their audience. If a token has both, the one that knows its key counts, else the first.
        meant = [issuer for issuer in issuers if is_for(token.claims, issuer.rules.audience)] or issuers
        return next((issuer for issuer in meant if issuer.keys is not None and token.kid and issuer.keys.knows(token.kid)), meant[0])

    def verified(self, text: bytes, now: float) -> VerifiedToken | None:
        """Return a token that was verified before, with a key that is still its issuer's; None: it must be verified.

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
            TokenRefused: it is not valid, at least not now.
            KeysUnknown: its issuer's keys have not been read yet.
        """
        found = self.issuer_of(token).verify(token)
        self._check_time(found, now)
        self._verified[hashlib.sha256(token.text).digest()] = found
        if len(self._verified) > TOKENS_KEPT:
            del self._verified[next(iter(self._verified))]
        return found

    def read(self, text: bytes, now: float) -> VerifiedToken:
        """Return a token, verified now or before, with the known keys. Raises what `verify` does."""
        return self.verified(text, now) or self.verify(parse_token(text), now)

    def _check_time(self, token: VerifiedToken, now: float) -> None:
        try:
            check_time(token.claims, token.issuer.rules, now)
        except TokenRefused as refused:
            refused.issuer, refused.kid = token.issuer.name, token.key.kid
            raise
