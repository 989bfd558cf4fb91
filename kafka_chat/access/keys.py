"""An issuer's keys: from a JWKS, a PEM file or a shared secret, and which of them may verify a token."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OctKey, OKPKey, RSAKey

from .token_refused import Reason, TokenRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from joserfc.jwk import Key

RSA_BITS = 2048
RSA_BITS_MOST = 8192  # a verify with 16,384 bits takes 2 ms
SECRET_BYTES = 32  # RFC 7518 section 3.2: as long as the hash of HS256
KEYS = 100  # the most keys of one issuer; usual are two or three

_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_BASE64URL = re.compile(r"(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2,3})?")
_KINDS = ((RSAPublicKey, RSAKey), (EllipticCurvePublicKey, ECKey), (Ed25519PublicKey | Ed448PublicKey, OKPKey))
# A public key, or text that looks like one, would be a public secret; for a broken one the library only warns.
_MARKS = (b"-----BEGIN ", b"---- BEGIN ", b"ssh-", b"ecdsa-sha2-")
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")


class KeyRefused(ValueError):
    """A key may not be used; the message says why, without a byte of the key."""


class NotForSigning(KeyRefused):
    """A key for something else, such as encryption, or of another kind; many issuers also publish such keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyingKey:
    """A key that verifies tokens.

    Attributes:
        kid: its key id; None if it has none.
        kind: `RSA`, `EC`, `OKP` or `oct`.
        algorithms: the algorithms that it may be used with.
        key: the library's key object.
    """

    kid: str | None
    kind: str
    algorithms: frozenset[str]
    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedKey:
    """A key that is left out.

    Attributes:
        kid: its key id, if it has one.
        kind: its `kty`, if it has one.
        why: why it is left out, a sentence.
        for_signing: whether it may be meant for tokens; leaving out others is normal.
    """

    kid: str | None
    kind: str | None
    why: str
    for_signing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The keys of one issuer at one time."""

    keys: Sequence[VerifyingKey] = ()
    refused: Sequence[RefusedKey] = ()

    def __contains__(self, key: VerifyingKey) -> bool:
        """Whether this key is still among them, compared by its content, not its id."""
        return any(one.kid == key.kid and one.key == key.key for one in self.keys)

    def knows(self, kid: str | None) -> bool:
        """Whether newer keys would not help a token of this `kid`: there is a key of this name, or it has none, or no key has one."""
        return kid is None or any(key.kid == kid for key in self.keys) or all(key.kid is None for key in self.keys)

    def find(self, kid: str | None, algorithm: str) -> VerifyingKey:
        """Return the key for a token with this header.

        Any `kid` may mean a key without an id, such as a PEM or a secret, because back ends set a `kid` that no one else knows.

        Raises:
            TokenRefused: there is none, or more than one.
        """
        named = [key for key in self.keys if kid is None or key.kid == kid] or [key for key in self.keys if key.kid is None]
        fitting = [key for key in named if algorithm in key.algorithms]
        if len(fitting) == 1:
            return fitting[0]
        if not named:
            raise TokenRefused(Reason.KEY, "the issuer has no key of this kid", kid=kid)
        if not fitting:
            raise TokenRefused(Reason.KEY, "the key does not fit the algorithm", kid=kid)
        raise TokenRefused(Reason.KEY, "more than one key fits", kid=kid)


def read_jwks(text: bytes) -> KeySet:
    """Return the keys of a JWKS (RFC 7517 section 5), without invalid ones.

    Raises:
        KeyRefused: it is not a JWKS.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KeyRefused("it is not JSON") from error
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise KeyRefused("it has no list of keys")
    if len(listed) > KEYS:
        raise KeyRefused(f"it has over {KEYS} keys")
    keys, refused = [], []
    for described in listed:
        try:
            keys.append(_from_jwk(described))
        except KeyRefused as error:
            kid, kind = (described.get("kid"), described.get("kty")) if isinstance(described, dict) else (None, None)
            for_signing = not isinstance(error, NotForSigning)
            refused.append(RefusedKey(kid=_text(kid), kind=_text(kind), why=str(error), for_signing=for_signing))
    return KeySet(keys=keys, refused=refused)


def read_pem(text: bytes) -> KeySet:
    """Return the one public key of a PEM file.

    Raises:
        KeyRefused: it has no public key, or one that may not be used.
    """
    if b"PRIVATE KEY" in text:
        raise KeyRefused("it is a private key; the public key alone is needed")
    try:
        public = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyRefused("it is not a public key in PEM (BEGIN PUBLIC KEY)") from error
    kind = next((kind for native, kind in _KINDS if isinstance(public, native)), None)
    if kind is None:
        raise KeyRefused("it is of a kind that signs no token")
    if isinstance(public, RSAPublicKey):
        _check_rsa(public.key_size)
    return KeySet(keys=[_checked(kind.import_key(text), kid=None, only=None)])


def read_keys_file(text: bytes) -> KeySet:
    """Return the keys of a JWKS or PEM file.

    Raises:
        KeyRefused: it is neither.
    """
    return read_jwks(text) if text.lstrip().startswith(b"{") else read_pem(text)


def read_secret(text: bytes) -> KeySet:
    """Return the content of a secret file, without a final newline, as a key.

    Raises:
        KeyRefused: it is too short.
    """
    secret = text.removesuffix(b"\n").removesuffix(b"\r")
    if len(secret) < SECRET_BYTES:
        raise KeyRefused(f"it has {len(secret)} bytes; at least {SECRET_BYTES} are needed")
    if secret.lstrip().startswith(b"{") or any(mark in secret for mark in _MARKS):
        raise KeyRefused("it is a key in PEM, SSH or JSON, not a secret")
    try:
        key = OctKey.import_key(secret)
    except (JoseError, ValueError) as error:
        raise KeyRefused("it is a key in DER, not a secret") from error
    algorithms = frozenset(f"HS{8 * size}" for size in (32, 48, 64) if len(secret) >= size)
    return KeySet(keys=[VerifyingKey(kid=None, kind="oct", algorithms=algorithms, key=key)])


def _from_jwk(described: object) -> VerifyingKey:
    if not isinstance(described, dict):
        raise KeyRefused("it is not an object")
    _check_jwk(described)
    try:
        key = JWKRegistry.import_key(described)
    except (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm) as error:
        raise KeyRefused("its parameters make no key") from error
    return _checked(key, kid=described.get("kid"), only=described.get("alg"))


def _check_jwk(described: Mapping[str, object]) -> None:
    if any(name in described for name in _PRIVATE):
        raise KeyRefused("it has private parts: anyone who reads it can sign tokens")
    if described.get("kty") not in ("RSA", "EC", "OKP"):
        raise NotForSigning("its kty is not RSA, EC or OKP")
    if described.get("use", "sig") != "sig":
        raise NotForSigning("its use is not sig")
    operations = described.get("key_ops")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        raise NotForSigning("its key_ops do not have verify")
    for name in ("kid", "alg"):
        if not isinstance(described.get(name, ""), str):
            raise KeyRefused(f"its {name} is not a string")
    modulus = described.get("n")
    if described["kty"] == "RSA" and isinstance(modulus, str) and _BASE64URL.fullmatch(modulus):
        _check_rsa(int.from_bytes(urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4))).bit_length())


def _check_rsa(bits: int) -> None:
    """Refuse a key by its size, before the library, which only warns."""
    if not RSA_BITS <= bits <= RSA_BITS_MOST:
        raise KeyRefused(f"it is RSA with {bits} bits; {RSA_BITS} to {RSA_BITS_MOST} are needed")


def _checked(key: Key, *, kid: str | None, only: str | None) -> VerifyingKey:
    algorithms = frozenset(_algorithms(key))
    if only is not None:
        if only not in algorithms:
            raise KeyRefused("its alg does not fit it")
        algorithms = frozenset({only})
    return VerifyingKey(kid=kid, kind=key.key_type, algorithms=algorithms, key=key)


def _algorithms(key: Key) -> Iterator[str]:
    """Yield the algorithms that fit a key."""
    if isinstance(key, RSAKey):
        yield from _RSA
    elif isinstance(key, ECKey) and key.curve_name in _CURVES:
        yield _CURVES[key.curve_name]
    elif isinstance(key, OKPKey) and key.curve_name == "Ed25519":
        yield from ("EdDSA", "Ed25519")
    elif isinstance(key, OKPKey) and key.curve_name == "Ed448":
        yield from ("EdDSA", "Ed448")
    else:
        raise NotForSigning("its curve signs no token")


def _text(value: object) -> str | None:
    return value[:255] if isinstance(value, str) else None
