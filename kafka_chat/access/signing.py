"""Signs a token with a shared secret, for trying things out: the service itself signs none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from joserfc.jws import serialize_compact

from .keys import read_secret
from .token_shape import TOKEN_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping


class TokenTooLong(ValueError):
    """The token would be too long for the service."""


def sign(claims: Mapping[str, object], secret: bytes) -> str:
    """Return a token with `claims`, signed with HS256.

    Args:
        claims: its claims.
        secret: the content of `secret_file`.

    Raises:
        KeyRefused: the secret may not be used.
        TokenTooLong: it has over 8 KiB.
    """
    [key] = read_secret(secret).keys
    payload = json.dumps(claims, separators=(",", ":"), ensure_ascii=False)
    token = serialize_compact({"alg": "HS256", "typ": "JWT"}, payload, key.key, algorithms=["HS256"])
    if len(token) > TOKEN_BYTES:
        raise TokenTooLong(f"the token has {len(token)} bytes; at most {TOKEN_BYTES} are taken")
    return token
