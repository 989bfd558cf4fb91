"""`kafka-chat token` makes a token that the service takes, and says in one sentence what is wrong with a flag."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from kafka_chat.access.rights import Action
from kafka_chat.cli import new_token
from kafka_chat.cli.main import main
from kafka_chat.issuers.authority import open_authority
from kafka_chat.settings.model import AuthSettings, IssuerSettings, RoleSettings
from kafka_chat.telemetry.metrics import Telemetry
from tests.support.deadlines import HANG_SECONDS

SECRET = "0123456789" * 4


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    return file


def made(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["token", *arguments]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


async def test_the_service_takes_it_with_its_rights_roles_and_times(secret: Path, capsys: pytest.CaptureFixture[str]):
    text = made(
        capsys,
        *("--user", "zoe\u0301", "--read", "room*", "--read", "global", "--send", "room1", "--create", "room*"),
        *("--role", "staff", "--for", "1m", "--session-for", "2h", "--secret-file", str(secret)),
    )
    issuer = IssuerSettings(issuer="kafka-chat", audience="kafka-chat", secret_file=str(secret), roles_claim="roles")
    auth = AuthSettings(issuers={"main": issuer}, roles={"staff": RoleSettings(act_as=("guest-*",))})
    async with open_authority(auth, Telemetry()) as authority:
        with trio.fail_after(HANG_SECONDS):
            assert await authority.sources["main"].read_once()
            identity = await authority.identify(text.strip().encode(), "127.0.0.1:1")
    assert identity.user == "zo\u00e9"
    assert [identity.may(Action.READ, chat) for chat in ("room7", "global", "other")] == [True, True, False]
    assert [identity.may(Action.SEND, chat) for chat in ("room1", "room7")] == [True, False]
    assert identity.may(Action.CREATE, "room7")
    assert identity.may_speak_for("guest-1")
    assert identity.ends_at is not None
    assert 7000 < identity.ends_at - time.time() <= 7200


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--for", "1w"], '--for is "1w"; a number with s, m, h or d behind it, such as 30s, 5m, 1h or 1d, is needed'),
        (["--for", "0s"], '--for is "0s"; a number'),
        (["--for", "²s"], '--for is "²s"; a number'),
        (["--session-for", "-1h"], "expected one argument"),
        (["--session-for", "1"], '--session-for is "1"; a number'),
        (["--user", ""], "--user has 0 bytes of UTF-8; 1 to 255 are allowed"),
        (["--user", "a\nb"], "--user has a control character, which is not allowed"),
        (["--user", "\udcff"], "--user has a control character, which is not allowed"),
        (["--issuer", ""], "--issuer is empty, or has characters that cannot be printed"),
        (["--role", "\udcff"], "--role is empty, or has characters that cannot be printed"),
        (["--read", "a*b"], "--read is 'a*b', which is no pattern: a * stands at the end of a pattern, once"),
        (["--send", "ro om"], "--send is 'ro om', which is no pattern: "),
        (["--secret-file", "absent"], "--secret-file absent cannot be read: No such file or directory"),
        (["--secret-file", "."], "--secret-file . cannot be read: Is a directory"),
        (["--secret-file", "a\0b"], "--secret-file is no name of a file"),
        (["--role", "x" * 8000], "the token has 10"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], sentence: str, secret: Path, capsys: pytest.CaptureFixture[str]):
    try:
        code = main(["token", "--user", "ann", "--secret-file", str(secret), *arguments])
    except SystemExit as ended:  # argparse's own
        code = int(ended.code or 0)
    assert code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert sentence in printed.err


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"too short", "it has 9 bytes; at least 32 are needed"), (b"-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n", "in PEM")],
)
def test_a_secret_that_may_not_be_used_is_refused_without_it(content: bytes, why: str, secret: Path, capsys: pytest.CaptureFixture[str]):
    secret.write_bytes(content)
    assert main(["token", "--user", "ann", "--secret-file", str(secret)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kafka-chat: --secret-file {secret} has no secret that may be used: ")
    assert why in said
    assert "too short" not in said


def test_a_secret_without_an_end_is_not_read_to_its_end(capsys: pytest.CaptureFixture[str]):
    assert main(["token", "--user", "ann", "--secret-file", "/dev/zero"]) == 2
    assert "has over 65536 bytes" in capsys.readouterr().err


def test_without_the_library_it_says_how_to_get_it(secret: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(new_token, "EXTRA", "no_such_library")
    assert main(["token", "--user", "ann", "--secret-file", str(secret)]) == 2
    assert "pip install 'kafka-chat[auth]'" in capsys.readouterr().err
