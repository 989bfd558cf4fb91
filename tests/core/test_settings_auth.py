"""Who signs tokens and what they allow is set in the file or the environment; what is wrong is told with key and source."""

from __future__ import annotations

from pathlib import Path

import pytest

from kafka_chat.errors import SettingsError
from kafka_chat.settings import auth_checks
from kafka_chat.settings.model import EveryoneSettings, IssuerSettings, RoleSettings, Settings
from kafka_chat.settings.sources import load_settings, with_embedded_broker

MAIN = """
auth:
  issuers:
    main:
      issuer: https://id.example/realms/chat
      audience: kafka-chat
      jwks_url: https://id.example/jwks
"""


def load(text: str, folder: Path, environ: dict[str, str] | None = None) -> Settings:
    path = folder / "config.yaml"
    path.write_text(text)
    return load_settings(config_file=path, environ=environ or {}, flags={})


def test_an_issuer_has_a_name_and_keys_of_its_own(tmp_path: Path):
    settings = load(
        MAIN
        + """\
      algorithms: [ES256]
      roles_claim: [realm_access, roles]
    partner_2: {issuer: p, audience: a, secret_file: 0123, users: ["partner-*"]}
  roles:
    chat.admin: {read: ["*"], act_as: ["*"]}
  everyone: {read: [global, "dm.{user}.*"]}
""".replace("    partner_2", "      users: ['*']\n    partner_2"),
        tmp_path,
    )
    assert settings.auth.issuers == {
        "main": IssuerSettings(
            issuer="https://id.example/realms/chat",
            audience="kafka-chat",
            jwks_url="https://id.example/jwks",
            algorithms=("ES256",),
            roles_claim=("realm_access", "roles"),
            users=("*",),
        ),
        "partner_2": IssuerSettings(issuer="p", audience="a", secret_file="0123", users=("partner-*",)),
    }
    assert settings.auth.roles == {"chat.admin": RoleSettings(read=("*",), act_as=("*",))}
    assert settings.auth.everyone == EveryoneSettings(read=("global", "dm.{user}.*"))


def test_the_environment_comes_before_the_file_a_key_at_a_time(tmp_path: Path):
    environ = {
        "KAFKA_CHAT_AUTH__ISSUERS__MAIN__JWKS_URL": "https://other.example/jwks",
        "KAFKA_CHAT_AUTH__ISSUERS__MAIN__ALGORITHMS": "RS256,ES256",
        "KAFKA_CHAT_AUTH__ISSUERS__MAIN__ROLES_CLAIM": "roles",
        "KAFKA_CHAT_AUTH__ROLES__STAFF__READ": "*",
    }
    auth = load(MAIN, tmp_path, environ).auth
    assert auth.issuers["main"].issuer == "https://id.example/realms/chat"
    assert auth.issuers["main"].jwks_url == "https://other.example/jwks"
    assert auth.issuers["main"].algorithms == ("RS256", "ES256")
    assert auth.roles == {"staff": RoleSettings(read=("*",))}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("auth: {anonymous: [global]}", "line 1: auth.anonymous is set, but there is nobody in auth.issuers"),
        ("auth: {everyone: {read: ['*']}}", "line 1: auth.everyone is set, but there is nobody in auth.issuers"),
        ("auth: {issuers: {main: {}}}", "line 1: under auth.issuers.main keys are needed, of issuer, audience, jwks_url"),
        ("auth: {issuers: {main: x}}", "line 1: under auth.issuers.main keys are needed, of issuer, audience, jwks_url"),
        ("auth: {issuers: x}", "line 1: auth.issuers has a value; names, each with its keys, are needed under it"),
        (MAIN + "      audiense: x", "line 8: there is no setting auth.issuers.main.audiense; did you mean auth.issuers.main.audience?"),
        (MAIN + "      zzz: x", "line 8: there is no setting auth.issuers.main.zzz; auth.issuers.main has issuer, audience,"),
        (MAIN.replace("main:", "Main:"), "line 5: auth.issuers.Main is not a name"),
        (MAIN.replace("main:", "a__b:"), "auth.issuers.a__b is not a name"),
        (MAIN.replace("issuer: https://id.example/realms/chat", "user_claim: sub"), "auth.issuers.main.issuer is missing"),
        (MAIN.replace("kafka-chat", "''"), "line 6: auth.issuers.main.audience is missing"),
        (MAIN + "      keys_file: /k", "auth.issuers.main needs one of jwks_url, keys_file, secret_file, and has jwks_url and keys_file"),
        (MAIN.replace("jwks_url: https://id.example/jwks", "user_claim: sub"), "and has none"),
        (
            MAIN.replace("https://id.example/jwks", "http://id.example/jwks"),
            "line 7: auth.issuers.main.jwks_url has to begin with https://",
        ),
        (MAIN.replace("https://id.example/jwks", "https://u:secret@id.example/"), "line 7: auth.issuers.main.jwks_url has to begin with"),
        (MAIN.replace("https://id.example/jwks", "https://id..example/"), "line 7: auth.issuers.main.jwks_url has to begin with"),
        (MAIN.replace("https://id.example/jwks", f"https://{'a' * 64}.example/"), "line 7: auth.issuers.main.jwks_url has to begin with"),
        (MAIN.replace("jwks_url: https://id.example/jwks", "jwks_url: http://127.0.0.1/\n      ca_file: /c"), "ca_file is of use only"),
        (MAIN + "      algorithms: [HS256]", "line 8: auth.issuers.main.algorithms may have RS256"),
        (MAIN + "      algorithms: [none]", "line 8: auth.issuers.main.algorithms may have RS256"),
        (MAIN + "      algorithms: []", "line 8: auth.issuers.main.algorithms is empty"),
        (MAIN.replace("jwks_url: https://id.example/jwks", "secret_file: /s\n      algorithms: [RS256]"), "may have HS256, HS384, HS512"),
        (MAIN + "    b: {issuer: i, audience: a, secret_file: /s}", "auth.issuers.main.users is missing; where there are several issuers"),
        (
            MAIN
            + "      users: ['*']\n    b: {issuer: 'https://id.example/realms/chat', audience: kafka-chat, secret_file: /s, users: ['*']}",
            "line 9: auth.issuers.b has the issuer and the audience of auth.issuers.main; tokens of the two could not be told apart",
        ),
        (MAIN + "      users: ['a*b']", "line 8: auth.issuers.main.users has 'a*b', which is no pattern"),
        (MAIN + "      user_claim: ''", "line 8: auth.issuers.main.user_claim is empty"),
        (MAIN + "      roles_claim: [a, '']", "line 8: auth.issuers.main.roles_claim is empty"),
        (MAIN + "  anonymous: ['ro om']", "line 8: auth.anonymous has 'ro om', which is no pattern"),
        (MAIN + "  everyone: {send: ['{user']}", "line 8: auth.everyone.send has '{user', which is no pattern"),
        (MAIN + "  roles: {staff: {read: ['*']}}", "line 8: auth.roles is set, but no issuer has a roles_claim"),
        (MAIN + "      roles_claim: r\n  roles: {staff: {act_as: ['']}}", "line 9: auth.roles.staff.act_as has '', which is no pattern"),
        (MAIN + "  roles: {staff: x}", "line 8: under auth.roles.staff keys are needed, of read, send, create, act_as"),
        (MAIN + "  cookie: t", "line 8: auth.cookie needs access.origins"),
        (MAIN + "  cookie: 'a b'\naccess: {origins: ['https://a.example']}", "line 8: auth.cookie is not the name of a cookie"),
        (MAIN + "  leeway_seconds: 301", "line 8: auth.leeway_seconds is 301; a number"),
        (MAIN + "  leeway_seconds: -1", "line 8: auth.leeway_seconds is -1; a number"),
        (MAIN + "  max_lifetime_hours: 0", "line 8: auth.max_lifetime_hours is 0; a number"),
        (MAIN + "history: {cache: public}", "line 8: history.cache is public, but with auth.issuers no page may be kept without"),
    ],
)
def test_what_is_wrong_is_told_with_its_key_and_its_line(text: str, sentence: str, tmp_path: Path):
    with pytest.raises(SettingsError) as refused:
        load(text, tmp_path)
    assert sentence in str(refused.value)
    assert "secret@" not in str(refused.value)


def test_the_documented_settings_take_issuers_as_they_are(tmp_path: Path):
    text = (Path(__file__).parents[2] / "config.yaml").read_text()
    issuer = MAIN.removeprefix("\nauth:\n")
    assert load(text.replace("  issuers: {}\n", issuer), tmp_path).auth.issuers.keys() == {"main"}


def test_the_embedded_broker_goes_with_issuers(tmp_path: Path):
    settings = with_embedded_broker(load(MAIN, tmp_path))
    assert (settings.kafka.embedded, settings.auth.issuers.keys()) == (True, {"main"})


def test_without_the_library_issuers_are_refused_and_all_else_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auth_checks, "EXTRA", "no_such_library")
    assert load("", tmp_path) == Settings()
    with pytest.raises(SettingsError, match=r"kafka-chat\[auth\]"):
        load(MAIN, tmp_path)


def test_a_property_may_be_in_a_file(tmp_path: Path):
    (tmp_path / "secret").write_text("p ass\n\n")
    settings = load(f"kafka: {{property_files: {{sasl.password: {tmp_path / 'secret'}}}}}", tmp_path)
    assert settings.kafka.properties == {"sasl.password": "p ass\n"}
    environ = {"KAFKA_CHAT_KAFKA__PROPERTY_FILES__SASL_PASSWORD": str(tmp_path / "secret")}
    assert load("", tmp_path, environ).kafka.properties == {"sasl.password": "p ass\n"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "kafka: {property_files: {sasl.password: absent}}",
            'line 1: kafka.property_files.sasl.password is "absent", which cannot be read',
        ),
        ("kafka: {property_files: {sasl.password: .}}", "which cannot be read: Is a directory"),
        ("kafka: {property_files: {group.id: config.yaml}}", "kafka.properties may not set group.id"),
        (
            "kafka: {property_files: {sasl.password: x}, properties: {sasl.password: y}}",
            "kafka.property_files.sasl.password is set, and so is kafka.properties.sasl.password",
        ),
        ("kafka: {property_files: x}", "line 1: kafka.property_files has a value"),
    ],
)
def test_what_is_wrong_with_such_a_file_is_told(text: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as refused:
        load(text, tmp_path)
    assert sentence in str(refused.value)
