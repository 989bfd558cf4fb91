"""The settings that docs/access.md shows are right, and take the tokens that Keycloak, Auth0 and a back end of one's own make."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from joserfc import jwk, jws

from kafka_chat.access.decision import Unauthorized
from kafka_chat.access.identity import Identity
from kafka_chat.access.rights import Action
from kafka_chat.issuers.authority import open_authority
from kafka_chat.settings.model import AuthSettings
from kafka_chat.settings.sources import load_settings
from kafka_chat.telemetry.metrics import Telemetry
from tests.support.deadlines import HANG_SECONDS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
YAML = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
PAYLOAD = json.loads(re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)[0])

RSA = jwk.RSAKey.generate_key(2048, {"kid": "KdY3", "use": "sig", "alg": "RS256"})
RSA_ENCRYPTION = jwk.RSAKey.generate_key(2048, {"kid": "xQ1", "use": "enc", "alg": "RSA-OAEP"})
EC = jwk.ECKey.generate_key("P-256")

# As Keycloak 26 makes an access token; shortened.
KEYCLOAK = {
    "jti": "onrtac:0c6b3f7e-3f0e-4a53-9f1c-6b6f2b7a8c11",
    "iss": "https://id.example/realms/chat",
    "aud": ["kafka-chat", "account"],
    "sub": "c0f5f0de-7b0b-4c59-9f0e-1d6f6f0a2b11",
    "typ": "Bearer",
    "azp": "shop-web",
    "sid": "9d0f8b6e-5f0e-4f0c-8a52-0d4e4a1c2f55",
    "acr": "1",
    "allowed-origins": ["https://shop.example"],
    "realm_access": {"roles": ["offline_access", "default-roles-chat", "chat-staff"]},
    "resource_access": {"account": {"roles": ["manage-account"]}},
    "scope": "openid profile email",
    "email_verified": True,
    "name": "Ann Example",
    "preferred_username": "ann",
    "email": "ann@example.com",
}
# As Auth0 makes one for an API, in its own profile.
AUTH0 = {
    "https://chat.example/name": "ann",
    "https://chat.example/roles": ["staff"],
    "iss": "https://example.eu.auth0.com/",
    "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
    "aud": ["https://chat.example/", "https://example.eu.auth0.com/userinfo"],
    "azp": "my_client_id",
    "scope": "openid profile",
    "permissions": [],
}


def documented(issuer: str, folder: Path) -> AuthSettings:
    """Return the settings that the document shows for an issuer, with its keys in a file: the network is no part of this."""
    [text] = [text for text in YAML if f"    {issuer}:" in text]
    file = folder / "config.yaml"
    file.write_text(text)
    auth = load_settings(config_file=file, environ={}, flags={}).auth
    keys = folder / "keys"
    keys.write_text(json.dumps({"keys": [RSA_ENCRYPTION.as_dict(private=False), RSA.as_dict(private=False)]}))
    if auth.issuers[issuer].algorithms == ("ES256",):
        keys.write_bytes(EC.as_pem(private=False))
    replaced = msgspec.structs.replace(auth.issuers[issuer], jwks_url=None, keys_file=str(keys))
    return msgspec.structs.replace(auth, issuers={issuer: replaced})


def signed(payload: dict[str, Any], header: dict[str, Any], key: jwk.Key = RSA, *, seconds: int = 300) -> bytes:
    now = int(time.time())
    body = json.dumps({"exp": now + seconds, "iat": now, **payload}).encode()
    return jws.serialize_compact(header, body, key, algorithms=["RS256", "ES256"]).encode()


async def identified(auth: AuthSettings, token: bytes) -> Identity:
    async with open_authority(auth, Telemetry()) as authority:
        [source] = authority.sources.values()
        with trio.fail_after(HANG_SECONDS):
            assert await source.read_once()
            return await authority.identify(token, "127.0.0.1:1")


@pytest.mark.parametrize("text", YAML)
def test_each_settings_block_is_right(text: str, tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert load_settings(config_file=file, environ={}, flags={}).auth.issuers


async def test_a_plain_token_of_keycloak(tmp_path: Path):
    auth = documented("keycloak", tmp_path)
    ann = await identified(auth, signed(KEYCLOAK, {"alg": "RS256", "typ": "JWT", "kid": "KdY3"}))
    assert ann.user == "ann"
    assert ann.may(Action.SEND, "any")
    other = {**KEYCLOAK, "preferred_username": "bob", "realm_access": {"roles": ["default-roles-chat"]}}
    bob = await identified(auth, signed(other, {"alg": "RS256", "typ": "JWT", "kid": "KdY3"}))
    assert [bob.may(Action.READ, chat) for chat in ("global", "dm.bob.ann", "dm.ann.bob")] == [True, True, False]
    for wrong in ({"aud": "account"}, {"iss": "https://id.example/realms/other"}):
        with pytest.raises(Unauthorized):
            await identified(auth, signed({**KEYCLOAK, **wrong}, {"alg": "RS256", "typ": "JWT", "kid": "KdY3"}))


@pytest.mark.parametrize("profile", ["JWT", "at+jwt"])  # Auth0's own, and RFC 9068
async def test_a_plain_token_of_auth0(profile: str, tmp_path: Path):
    auth = documented("auth0", tmp_path)
    ann = await identified(auth, signed(AUTH0, {"alg": "RS256", "typ": profile, "kid": "KdY3"}, seconds=86400))
    assert (ann.user, ann.may(Action.SEND, "any"), ann.may(Action.CREATE, "any")) == ("ann", True, False)


async def test_the_payload_that_is_shown_for_a_back_end_of_ones_own(tmp_path: Path):
    auth = documented("shop", tmp_path)
    now = int(time.time())
    assert PAYLOAD["exp"] - PAYLOAD["iat"] == 60
    ann = await identified(auth, signed({**PAYLOAD, "iat": now, "exp": now + 60}, {"alg": "ES256"}, EC))
    assert ann.user == "ann"
    assert [ann.may(Action.READ, chat) for chat in ("order.7", "dm.ann.x", "order.8")] == [True, True, False]
    assert [ann.may(Action.SEND, chat) for chat in ("order.7", "dm.ann.x")] == [True, False]
    back_end = await identified(auth, signed({**PAYLOAD, "iat": now, "exp": now + 60, "roles": "backend"}, {"alg": "ES256"}, EC))
    assert back_end.may_speak_for("bob")
