"""Of an issuer's keys those are taken that can only verify; the others are left out, with the reason."""

from __future__ import annotations

import json

import pytest
from joserfc import jwk

from kafka_chat.access.keys import SECRET_BYTES, KeyRefused, read_jwks, read_keys_file, read_pem, read_secret
from kafka_chat.access.token_refused import TokenRefused

RSA = jwk.RSAKey.generate_key(2048, {"kid": "r1"})
EC = jwk.ECKey.generate_key("P-256", {"kid": "e1"})
ED = jwk.OKPKey.generate_key("Ed25519", {"kid": "d1"})


def read(*keys: object):
    return read_jwks(json.dumps({"keys": keys}).encode())


def public(key: jwk.Key, **more: object) -> dict[str, object]:
    return {**key.as_dict(private=False), **more}


def test_each_good_key_is_taken_with_the_algorithms_that_it_fits():
    found = read(public(RSA, alg="RS256", use="sig"), public(EC), public(ED, key_ops=["verify"]))
    assert {key.kid: set(key.algorithms) for key in found.keys} == {"r1": {"RS256"}, "e1": {"ES256"}, "d1": {"EdDSA", "Ed25519"}}
    assert found.refused == []


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ({**RSA.as_dict(private=True)}, "private"),
        ({**EC.as_dict(private=True)}, "private"),
        ({"kty": "oct", "k": "AAAA"}, "private"),
        (public(RSA, use="enc"), "use"),
        (public(RSA, key_ops=["encrypt"]), "key_ops"),
        (public(RSA, alg="ES256"), "alg"),
        (public(RSA, alg="RSA-OAEP"), "alg"),
        (public(RSA, kid=7), "kid"),
        ({"kty": "AKP", "kid": "pq"}, "kty"),
        ({"kty": "RSA", "n": "AQAB", "e": "AQAB"}, "bits"),
        ({"kty": "RSA", "n": "!", "e": "AQAB"}, "parameters"),
        ({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, "parameters"),
        ({"kty": "OKP", "crv": "X25519", "x": "A" * 43}, "curve"),
        ("text", "object"),
    ],
)
def test_a_key_that_may_not_be_used_is_left_out_and_the_others_count(key, why):
    found = read(key, public(EC))
    assert [key.kid for key in found.keys] == ["e1"]
    assert why in found.refused[0].why


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"keys":{}}', b"\xff", b"[" * 100_000, b'{"keys":' + b"[" + b"1," * 200 + b"1]}"])
def test_what_is_no_list_of_keys_is_refused(text):
    with pytest.raises(KeyRefused):
        read_jwks(text)


@pytest.mark.parametrize("key", [RSA, EC, ED], ids=lambda key: key.key_type)
def test_a_pem_is_one_public_key(key):
    found = read_keys_file(key.as_pem(private=False))
    assert [one.key.as_dict(private=False).get("x", "n") for one in found.keys] == [key.as_dict(private=False).get("x", "n")]
    with pytest.raises(KeyRefused, match="private"):
        read_keys_file(key.as_pem(private=True))


def test_what_is_no_pem_is_refused():
    for text in (b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"\xff\xfe"):
        with pytest.raises(KeyRefused):
            read_pem(text)


def test_a_secret_is_the_bytes_of_its_file_less_one_line_break_and_is_long_enough():
    assert read_secret(b"s" * SECRET_BYTES + b"\r\n").keys == read_secret(b"s" * SECRET_BYTES).keys
    with pytest.raises(KeyRefused, match="31 bytes"):
        read_secret(b"s" * 31 + b"\n")


@pytest.mark.parametrize(
    "known_to_everybody",
    [
        RSA.as_pem(private=False),
        RSA.as_der(private=False),
        b" \n" + RSA.as_pem(private=True),
        b"-----BEGIN PUBLIC KEY-----\nbroken, of which the library only warns\n-----END PUBLIC KEY-----\n",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 broken",
        json.dumps({"keys": [RSA.as_dict(private=False)]}).encode(),
    ],
)
def test_a_key_of_another_kind_is_no_secret(known_to_everybody: bytes):
    with pytest.raises(KeyRefused, match="not a secret"):
        read_secret(known_to_everybody)


def test_a_key_without_a_name_is_meant_by_any_and_gives_way_to_one_that_has_it():
    for nameless in (read_pem(RSA.as_pem(private=False)), read_secret(b"s" * SECRET_BYTES)):
        [only] = nameless.keys
        algorithm = min(only.algorithms)
        assert nameless.knows("any")
        assert nameless.find("any", algorithm) is nameless.find(None, algorithm) is only
    unnamed = jwk.RSAKey.generate_key(2048)
    mixed = read(public(unnamed), public(RSA))
    assert mixed.find("r1", "RS256").kid == "r1"
    assert mixed.find("new", "RS256").kid is None
    assert not mixed.knows("new")
    with pytest.raises(TokenRefused, match="more than one"):
        read(public(unnamed), public(jwk.RSAKey.generate_key(2048))).find("new", "RS256")


def test_a_key_is_found_by_its_name_and_never_guessed_between_two():
    two = read(public(RSA), public(jwk.RSAKey.generate_key(2048, {"kid": "r2"})), public(EC))
    assert two.find("r2", "RS256").kid == "r2"
    assert two.find(None, "ES256").kid == "e1"
    for kid, algorithm in ((None, "RS256"), ("r1", "ES256"), ("x", "RS256")):
        with pytest.raises(TokenRefused):
            two.find(kid, algorithm)
    assert two.knows("r1")
    assert not two.knows("x")
