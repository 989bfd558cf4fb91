"""A token counts only if its issuer signed it, for us, for a user it may speak for, and for now."""

from __future__ import annotations

import base64
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk, jwt
from joserfc.jws import JWSRegistry

from kafka_chat.access.claims import ClaimRules
from kafka_chat.access.issuer import Issuer, Issuers
from kafka_chat.access.keys import KeySet, read_jwks, read_secret
from kafka_chat.access.patterns import parse_user_pattern
from kafka_chat.access.rights import Action
from kafka_chat.access.signature import ALGORITHMS
from kafka_chat.access.token_refused import KeysUnknown, Reason, TokenRefused
from kafka_chat.access.token_shape import TOKEN_BYTES, parse_token

NOW = 1_800_000_000.0
ISS = "https://id.example/realms/chat"
RSA = jwk.RSAKey.generate_key(2048, {"kid": "r1"})
EC = jwk.ECKey.generate_key("P-256", {"kid": "e1"})
ED = jwk.OKPKey.generate_key("Ed25519", {"kid": "d1"})
OTHER = jwk.RSAKey.generate_key(2048, {"kid": "r1"})
SECRET = b"0123456789abcdef0123456789abcdef"


def jwks(*keys: jwk.Key) -> KeySet:
    return read_jwks(json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode())


def rules(**changes: object) -> ClaimRules:
    return ClaimRules(**{"issuer": ISS, "audience": "kafka-chat", "users": [parse_user_pattern("*")], **changes})


def issuers(keys: KeySet | None = None, algorithms=("RS256", "ES256", "EdDSA"), **changes: object) -> Issuers:
    issuer = Issuer("main", rules(**changes), algorithms)
    issuer.keys = jwks(RSA, EC, ED) if keys is None else keys
    return Issuers([issuer])


def payload(**changes: object) -> dict[str, object]:
    claims = {"iss": ISS, "aud": "kafka-chat", "sub": "ann", "iat": NOW - 10, "exp": NOW + 600, **changes}
    return {name: value for name, value in claims.items() if value is not ...}


class _Signing(JWSRegistry):
    def get_alg(self, name):
        return self.algorithms[name]


def signed(key: jwk.Key = RSA, header: dict[str, object] | None = None, **claims: object) -> bytes:
    algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA", "oct": "HS256"}[key.key_type]
    named = {"alg": algorithm, "kid": key.get("kid"), **(header or {})}
    named = {name: value for name, value in named.items() if value not in (..., None)}
    return jwt.encode(named, payload(**claims), key, registry=_Signing(strict_check_header=False), default_type=None).encode()


def raw(header: bytes | dict[str, object], body: bytes | dict[str, object], key: jwk.Key = RSA, algorithm: str = "RS256") -> bytes:
    """Sign whatever bytes stand for header and payload."""
    segments = [piece if isinstance(piece, bytes) else json.dumps(piece).encode() for piece in (header, body)]
    text = b".".join(base64.urlsafe_b64encode(segment).rstrip(b"=") for segment in segments)
    signature = JWSRegistry.algorithms[algorithm].sign(text, key)
    return text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")


HEADER = {"alg": "RS256", "kid": "r1"}


def refused(token: bytes, among: Issuers | None = None) -> Reason:
    with pytest.raises(TokenRefused) as caught:
        (among or issuers()).read(token, NOW)
    return caught.value.reason


@pytest.mark.parametrize("key", [RSA, EC, ED], ids=lambda key: key.key_type)
def test_a_good_token_says_who_it_is(key):
    token = issuers().read(signed(key, chats=["room*"]), NOW)
    assert token.claims.user == "ann"
    assert token.claims.rights.allow(Action.READ, "room1", "ann")
    assert not token.claims.rights.allow(Action.SEND, "room1", "ann")


def test_a_token_with_a_shared_secret_says_who_it_is():
    token = signed(jwk.OctKey.import_key(SECRET))
    assert issuers(read_secret(SECRET + b"\n"), ["HS256"]).read(token, NOW).claims.user == "ann"


def test_a_kid_is_not_needed_where_one_key_alone_fits():
    assert issuers(jwks(RSA, EC)).read(signed(header={"kid": ...}), NOW).claims.user == "ann"
    two = jwks(RSA, jwk.RSAKey.generate_key(2048, {"kid": "r2"}))
    assert refused(signed(header={"kid": ...}), issuers(two)) is Reason.KEY


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", ...])
def test_these_types_are_taken(typ):
    assert issuers().read(signed(header={"typ": typ}), NOW)


def test_parameters_of_a_header_that_we_do_not_know_are_overlooked():
    assert issuers().read(signed(header={"x5t": "abc", "nonce": "n"}), NOW)


@pytest.mark.parametrize(
    "token",
    [
        b"", b".", b"..", b"a.b.c", b"a" * 9000, signed() + b"=", signed() + b".", signed() + b"\n", b" " + signed(),
        signed().replace(b".", b"..", 1),
    ],
)  # fmt: skip
def test_what_is_not_of_the_shape_of_a_token_is_refused_before_all_else(token):
    assert refused(token) is Reason.SHAPE


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b'{"alg":"RS256","kid":"r1","alg":"none"}', payload()),
        (HEADER, json.dumps(payload()).encode()[:-1] + b',"sub":"bob"}'),
        (HEADER, json.dumps(payload()).encode()[:-1] + b',"x":{"a":1,"a":2}}'),
        (HEADER, b"[1]"),
        (HEADER, b"nul"),
        (HEADER, b"\xff\xff\xff"),
        (HEADER, json.dumps(payload()).encode()[:-1] + b',"y":NaN}'),
        (b"[" * 3000 + b"]" * 3000, payload()),
    ],
)
def test_json_that_can_be_read_in_two_ways_or_in_none_is_refused(header, body):
    assert refused(raw(header, body)) is Reason.SHAPE


@pytest.mark.parametrize(
    "header",
    [
        {"crit": []}, {"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": False}, {"b64": True}, {"cty": "JWT"}, {"typ": "secevent+jwt"},
        {"typ": ""}, {"typ": 1}, {"typ": None}, {"jku": "https://evil.example/jwks"}, {"jwk": RSA.as_dict(private=False)},
        {"x5u": "https://evil.example/x"}, {"x5c": ["AA"]}, {"kid": 1}, {"kid": "k" * 256}, {"kid": ["r1"]}, {"kid": None},
        {"alg": None}, {"alg": 1},
    ],
)  # fmt: skip
def test_a_header_that_wants_more_than_a_signature_is_refused(header):
    assert refused(raw({**HEADER, **header}, payload())) is Reason.HEADER


def test_no_algorithm_but_the_issuers_is_taken():
    # CVE-2015-9235: a public key taken for the secret of HS256; and alg none, in any case.
    body = signed().split(b".")[1]
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"r1"}').rstrip(b"=")
    mac = hmac.new(RSA.as_pem(private=False), header + b"." + body, "sha256").digest()
    mixed = header + b"." + body + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")
    assert refused(mixed) is Reason.ALGORITHM
    assert refused(mixed, issuers(algorithms=["RS256", "HS256"])) is Reason.KEY
    for none in ("none", "None", "NONE", "nOnE", ""):
        assert refused(raw({"alg": none}, payload())) is Reason.ALGORITHM
    assert refused(signed(header={"alg": "RS512"})) is Reason.ALGORITHM


def test_a_key_verifies_only_what_its_kind_can_sign():
    token = raw({"alg": "RS256", "kid": "e1"}, payload())
    assert refused(token) is Reason.KEY
    only = read_jwks(json.dumps({"keys": [{**RSA.as_dict(private=False), "alg": "RS512"}]}).encode())
    assert refused(signed(), issuers(only)) is Reason.KEY


def test_a_signature_of_another_key_with_the_same_name_is_refused():
    assert refused(signed(OTHER)) is Reason.SIGNATURE


def test_each_changed_byte_of_a_signature_payload_or_header_is_noticed():
    token = signed()
    for place in range(0, len(token), 17):
        changed = b"A" if token[place : place + 1] != b"A" else b"B"
        other = token[:place] + changed + token[place + 1 :]
        with pytest.raises(TokenRefused):
            issuers().read(other, NOW)


def test_an_empty_or_a_zero_signature_is_refused():
    # CVE-2022-21449: r = s = 0 was a signature of everything.
    token = signed(EC)
    zero = token.rpartition(b".")[0] + b"." + base64.urlsafe_b64encode(b"\0" * 64).rstrip(b"=")
    assert refused(zero) is Reason.SIGNATURE
    assert refused(token.rpartition(b".")[0] + b".") is Reason.SHAPE


def test_a_key_that_is_in_the_token_is_not_used():
    # CVE-2018-0114: the token brought its own key.
    token = raw({"alg": "RS256", "kid": "r1", "jwk": OTHER.as_dict(private=False)}, payload(), OTHER)
    assert refused(token) is Reason.HEADER


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://id.example/realms/chat/"}, Reason.ISSUER), ({"iss": None}, Reason.ISSUER), ({"iss": [ISS]}, Reason.ISSUER),
        ({"iss": ...}, Reason.ISSUER), ({"aud": "other"}, Reason.AUDIENCE), ({"aud": ...}, Reason.AUDIENCE), ({"aud": []}, Reason.AUDIENCE),
        ({"aud": {"kafka-chat": 1}}, Reason.AUDIENCE), ({"aud": "kafka-chat2"}, Reason.AUDIENCE),
        ({"exp": ...}, Reason.TIME), ({"iat": ...}, Reason.TIME), ({"exp": str(NOW + 600)}, Reason.TIME), ({"exp": True}, Reason.TIME),
        ({"exp": None}, Reason.TIME), ({"exp": NOW - 31}, Reason.TIME), ({"exp": (NOW + 600) * 1000}, Reason.TIME),
        ({"exp": 10**400}, Reason.TIME), ({"iat": NOW + 31}, Reason.TIME), ({"nbf": NOW + 31}, Reason.TIME), ({"nbf": "now"}, Reason.TIME),
        ({"iat": NOW - 10, "exp": NOW + 24 * 3600}, Reason.TIME), ({"session_exp": "x"}, Reason.TIME),
        ({"sub": ...}, Reason.CLAIMS), ({"sub": ""}, Reason.CLAIMS), ({"sub": 7}, Reason.CLAIMS), ({"sub": "a" * 256}, Reason.CLAIMS),
        ({"sub": "Jose\u0301"}, Reason.CLAIMS), ({"sub": "a\nb"}, Reason.CLAIMS), ({"sub": "a/b"}, Reason.CLAIMS),
        ({"jti": 1}, Reason.CLAIMS),
        ({"chats": "room1"}, Reason.CLAIMS), ({"chats": ["room1", ""]}, Reason.CLAIMS), ({"chats": ["a*b"]}, Reason.CLAIMS),
        ({"chats": ["room 1"]}, Reason.CLAIMS), ({"chats": {"write": ["a"]}}, Reason.CLAIMS), ({"chats": {"read": "a"}}, Reason.CLAIMS),
        ({"chats": [1]}, Reason.CLAIMS), ({"chats": ["{chat}"]}, Reason.CLAIMS),
    ],
)  # fmt: skip
def test_claims_that_are_missing_or_wrong_refuse_the_token(claims, reason):
    assert refused(signed(**claims)) is reason


@pytest.mark.parametrize(
    "claims", [{"aud": ["x", "kafka-chat"]}, {"exp": NOW + 0.5}, {"exp": NOW - 29}, {"iat": NOW + 29}, {"nbf": NOW - 1}]
)
def test_claims_within_the_leeway_and_in_their_other_forms_are_taken(claims):
    assert issuers().read(signed(**claims), NOW)


def test_an_issuer_speaks_only_for_its_users():
    partner = issuers(users=[parse_user_pattern("guest-*")])
    assert partner.read(signed(sub="guest-1"), NOW).claims.user == "guest-1"
    assert refused(signed(sub="ann"), partner) is Reason.ISSUER


def test_roles_are_read_where_a_claim_for_them_is_set_and_nowhere_else():
    token = signed(roles=["staff"], realm_access={"roles": ["admin"]})
    assert issuers().read(token, NOW).claims.roles == ()
    assert issuers(roles_claim=["roles"]).read(token, NOW).claims.roles == ("staff",)
    assert issuers(roles_claim=["realm_access", "roles"]).read(token, NOW).claims.roles == ("admin",)
    assert issuers(roles_claim=["no", "such"]).read(token, NOW).claims.roles == ()
    assert refused(signed(roles={"a": 1}), issuers(roles_claim=["roles"])) is Reason.CLAIMS


def test_keys_belong_to_their_issuer_and_are_never_pooled():
    ours, theirs = Issuer("main", rules(), ["RS256"]), Issuer("partner", rules(issuer="https://partner.example"), ["RS256"])
    ours.keys, theirs.keys = jwks(RSA), jwks(jwk.RSAKey.generate_key(2048, {"kid": "p1"}))
    both = Issuers([ours, theirs])
    assert both.read(signed(), NOW).issuer is ours
    assert refused(signed(iss="https://partner.example"), both) is Reason.KEY


def test_before_the_keys_are_read_a_token_is_neither_good_nor_bad():
    issuer = Issuer("main", rules(), ["RS256"])
    with pytest.raises(KeysUnknown):
        Issuers([issuer]).read(signed(), NOW)


def test_a_token_that_was_verified_is_refused_once_its_key_is_gone_or_its_time_is_over():
    among, token = issuers(), signed()
    first = among.read(token, NOW)
    assert among.read(token, NOW + 1) is first
    with pytest.raises(TokenRefused):
        among.read(token, NOW + 631)
    first.issuer.keys = jwks(RSA, EC)
    assert among.read(token, NOW + 2) is first  # the same key, read again
    first.issuer.keys = jwks(OTHER)
    assert refused(token, among) is Reason.SIGNATURE


def test_a_refusal_names_the_issuer_and_the_kid_and_no_other_byte_of_the_token():
    with pytest.raises(TokenRefused) as caught:
        issuers().read(signed(OTHER, sub="a-very-secret-name"), NOW)
    assert (caught.value.issuer, caught.value.kid) == ("main", "r1")
    for claims in ({"sub": "sec\nret"}, {"chats": ["sec ret"]}, {"chats": {"secret": []}}, {"exp": "secret"}):
        with pytest.raises(TokenRefused) as caught:
            issuers().read(signed(**claims), NOW)
        assert "sec" not in str(caught.value).replace("session", "")


@given(st.binary(max_size=TOKEN_BYTES + 10) | st.text("abcXYZ019-_.", max_size=400).map(str.encode))
def test_whatever_comes_is_refused_by_its_class(text):
    with pytest.raises(TokenRefused):
        parse_token(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["iss", "aud", "sub", "exp", "iat", "nbf", "jti", "chats", "session_exp", "roles"]), json_values, max_size=6
    )
)
def test_whatever_an_issuer_signs_is_taken_or_refused_and_never_an_error(changes):
    token = raw({"alg": "RS256", "kid": "r1"}, {**payload(), **changes})
    try:
        found = issuers(roles_claim=["roles"]).read(token, NOW)
    except TokenRefused:
        return
    assert found.claims.user
    assert found.claims.expires_at + 30 > NOW


def test_every_algorithm_that_may_be_set_is_one_of_the_librarys():
    assert set(JWSRegistry.algorithms) >= ALGORITHMS
