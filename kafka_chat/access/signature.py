"""Verifies a token's signature, by `joserfc`, which the extra `kafka-chat[auth]` brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry, deserialize_compact

from .token_refused import Reason, TokenRefused
from .token_shape import TOKEN_BYTES

if TYPE_CHECKING:
    from joserfc._rfc7515.model import JWSAlgModel

    from .keys import VerifyingKey
    from .token_shape import UnverifiedToken

ALGORITHMS = frozenset({
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448",
})  # fmt: skip


class _OneAlgorithm(JWSRegistry):
    """Accepts one algorithm, and ignores further header parameters (RFC 7515 section 4)."""

    max_header_length = max_payload_length = TOKEN_BYTES

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm], strict_check_header=False)

    def get_alg(self, name: str) -> JWSAlgModel:
        """Return the algorithm, without the library's warning that `EdDSA` has a newer name: issuers write the older one."""
        if self.allowed is None or name not in self.allowed:
            raise TokenRefused(Reason.ALGORITHM, "the algorithm is not the key's")
        return self.algorithms[name]


_registries = {algorithm: _OneAlgorithm(algorithm) for algorithm in ALGORITHMS}


def verify(token: UnverifiedToken, key: VerifyingKey) -> None:
    """Check that `token` was signed with `key`, whose algorithms include the token's.

    Raises:
        TokenRefused: it was not.
    """
    try:
        deserialize_compact(token.text, key.key, registry=_registries[token.algorithm])
    except (JoseError, ValueError) as error:
        raise TokenRefused(Reason.SIGNATURE, "the signature does not fit", kid=token.kid) from error
