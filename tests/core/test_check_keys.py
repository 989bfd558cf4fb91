"""`kafka-chat check` lists each issuer's keys, and says of those that are left out why."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio
from joserfc import jwk

from kafka_chat.cli.check import check
from kafka_chat.cli.check_keys import check_keys
from kafka_chat.cli.finding import Finding
from kafka_chat.settings.model import AuthSettings, IssuerSettings, KafkaSettings, Settings
from tests.support.deadlines import HANG_SECONDS
from tests.support.issuer import AUDIENCE, ISS, SECRET, key, open_jwks_server, secret_auth

SIGNING = jwk.RSAKey.generate_key(2048, {"kid": "r1", "use": "sig", "alg": "RS256"})
ENCRYPTION = jwk.RSAKey.generate_key(2048, {"kid": "r2", "use": "enc", "alg": "RSA-OAEP"})
OTHER = jwk.RSAKey.generate_key(2048, {"kid": "r3", "alg": "RS512"})


def with_keys_file(folder: Path, *keys: dict[str, object], algorithms: tuple[str, ...] | None = None) -> AuthSettings:
    file = folder / "keys"
    file.write_text(json.dumps({"keys": keys}))
    return AuthSettings(issuers={"main": IssuerSettings(issuer=ISS, audience=AUDIENCE, keys_file=str(file), algorithms=algorithms)})


async def found(auth: AuthSettings) -> list[tuple[bool, str]]:
    with trio.fail_after(HANG_SECONDS):
        findings = await check_keys(auth)
    assert {finding.subject for finding in findings} <= {"keys"}
    return [(finding.ok, finding.sentence) for finding in findings]


async def test_each_key_is_named_with_its_kind_and_algorithms(tmp_path: Path):
    auth = with_keys_file(tmp_path, *(one.as_dict(private=False) for one in (SIGNING, ENCRYPTION, OTHER, key("e1"))))
    assert await found(auth) == [
        (True, 'auth.issuers.main has the RSA key "r1", for RS256'),
        (True, 'auth.issuers.main has the RSA key "r3", which is of no use: it is for RS512, which is not in auth.issuers.main.algorithms'),
        (True, 'auth.issuers.main has the EC key "e1", for ES256'),
        (True, 'auth.issuers.main has the RSA key "r2", which is left out: its use is not sig'),
    ]


async def test_what_is_refused_and_was_meant_for_tokens_is_wrong(tmp_path: Path):
    private = key("leaked").as_dict(private=True)
    findings = await found(with_keys_file(tmp_path, SIGNING.as_dict(private=False), private))
    assert findings[1:] == [
        (
            False,
            'auth.issuers.main has the EC key "leaked", which is left out: it has private parts: anyone who reads it can sign tokens',
        )
    ]
    assert str(private["d"]) not in str(findings)


async def test_an_issuer_none_of_whose_keys_can_be_used_is_wrong(tmp_path: Path):
    findings = await found(with_keys_file(tmp_path, SIGNING.as_dict(private=False), algorithms=("ES256", "EdDSA")))
    assert findings[-1] == (
        False,
        "auth.issuers.main has no key that fits auth.issuers.main.algorithms (ES256, EdDSA): no token could be valid",
    )


async def test_each_issuer_is_asked_once_and_one_that_does_not_answer_holds_up_no_other(tmp_path: Path):
    async with open_jwks_server(key("e1")) as server:
        secret = secret_auth(tmp_path).issuers["main"]
        away = IssuerSettings(issuer=ISS, audience=AUDIENCE, jwks_url="http://127.0.0.1:1/jwks")
        by_url = IssuerSettings(issuer=ISS, audience=AUDIENCE, jwks_url=server.url)
        findings = await found(AuthSettings(issuers={"away": away, "by_url": by_url, "secret": secret}))
        assert server.requests == 1
    assert findings[1:] == [
        (True, 'auth.issuers.by_url has the EC key "e1", for ES256'),
        (True, "auth.issuers.secret has the oct key without a kid, for HS256"),
    ]
    assert findings[0][0] is False
    assert findings[0][1].startswith("auth.issuers.away: ")
    assert SECRET not in str(findings)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "it is not JSON"),
        ('{"keys": 7}', "it has no list of keys"),
        ("", "it is not a public key in PEM (BEGIN PUBLIC KEY)"),
    ],
)
async def test_keys_that_cannot_be_had_are_one_sentence(content: str | None, why: str, tmp_path: Path):
    auth = with_keys_file(tmp_path)
    if content is None:
        (tmp_path / "keys").unlink()
    else:
        (tmp_path / "keys").write_text(content)
    [(ok, sentence)] = await found(auth)
    assert not ok
    assert sentence.startswith("auth.issuers.main: ")
    assert sentence.endswith(why)


async def test_a_pipe_in_place_of_a_file_ends_too(tmp_path: Path):
    auth = with_keys_file(tmp_path)
    (tmp_path / "keys").unlink()
    os.mkfifo(tmp_path / "keys")
    assert [ok for ok, _ in await found(auth)] == [False]


async def test_the_keys_come_before_the_brokers_and_without_issuers_there_are_none(tmp_path: Path):
    embedded = KafkaSettings(embedded=True)
    with trio.fail_after(HANG_SECONDS):
        on = await check(Settings(kafka=embedded, auth=secret_auth(tmp_path)))
        off = await check(Settings(kafka=embedded))
    assert [finding.subject for finding in on] == ["settings", "files", "keys", "brokers"]
    assert [finding.subject for finding in off] == ["settings", "files", "brokers"]
    assert all(isinstance(finding, Finding) and finding.ok for finding in on)
