"""Checks the shape of a token before its signature is verified.

The library refuses most invalid tokens by itself; this refuses those that it accepts.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .token_refused import Reason, TokenRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN_BYTES = 8192
KID_CHARACTERS = 255  # longer ones are refused, because they appear in log lines

# Header, payload and signature, base64url without padding (RFC 7515 section 7.1).
_TOKEN = re.compile(rb"[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}")
_TYPES = ("jwt", "at+jwt")  # RFC 7519 section 5.1, RFC 9068 section 2.1
_KEYS_IN_THE_TOKEN = ("jku", "jwk", "x5u", "x5c")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedToken:
    """A token of the right shape, of which nothing may be trusted yet.

    Attributes:
        text: the whole token.
        algorithm: the algorithm in its header.
        kid: the key id in its header; None without one.
        claims: its payload.
    """

    text: bytes
    algorithm: str
    kid: str | None
    claims: Mapping[str, object]


def parse_token(text: bytes) -> UnverifiedToken:
    """Return the parts of a token.

    Raises:
        TokenRefused: `SHAPE` or `HEADER`.
    """
    if len(text) > TOKEN_BYTES:
        raise TokenRefused(Reason.SHAPE, f"the token has over {TOKEN_BYTES} bytes")
    if not _TOKEN.fullmatch(text):
        raise TokenRefused(Reason.SHAPE, "the token is not three segments of base64url")
    header_segment, payload_segment, _ = text.split(b".")
    header = _json_object(header_segment, "header")
    kid = header.get("kid")
    if "kid" in header and not (isinstance(kid, str) and len(kid) <= KID_CHARACTERS):
        raise TokenRefused(Reason.HEADER, f"kid is not a string of at most {KID_CHARACTERS} characters")
    kid = None if kid is None else str(kid)
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise TokenRefused(Reason.HEADER, "alg is not a string", kid=kid)
    _check_header(header, kid)
    return UnverifiedToken(text=text, algorithm=algorithm, kid=kid, claims=_json_object(payload_segment, "payload"))


def _check_header(header: Mapping[str, object], kid: str | None) -> None:
    if "crit" in header or "b64" in header:  # no extensions are supported, and an empty list is not allowed, either
        raise TokenRefused(Reason.HEADER, "the header has crit or b64", kid=kid)
    if "cty" in header:
        raise TokenRefused(Reason.HEADER, "the header has cty", kid=kid)
    for name in _KEYS_IN_THE_TOKEN:
        if name in header:
            raise TokenRefused(Reason.HEADER, f"the header has {name}: a token does not say where its key comes from", kid=kid)
    if "typ" in header and str(header["typ"]).lower() not in _TYPES:
        raise TokenRefused(Reason.HEADER, "typ is neither JWT nor at+jwt", kid=kid)


def _json_object(segment: bytes, name: str) -> dict[str, object]:
    try:
        text = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4)).decode("utf-8")
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (binascii.Error, ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise TokenRefused(Reason.SHAPE, f"the {name} is not JSON, or has a name twice") from error
    if not isinstance(value, dict):
        raise TokenRefused(Reason.SHAPE, f"the {name} is not an object")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")
