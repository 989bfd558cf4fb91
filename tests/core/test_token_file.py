"""The command line has its token from a file, stdin or the environment, and no error quotes it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from kafka_chat.cli.token_file import token_of, token_source
from kafka_chat.errors import SettingsError

TOKEN = "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"
ENVIRON = {"KAFKA_CHAT_TOKEN": f" {TOKEN}\n"}


def test_without_any_there_is_none():
    assert token_source(None, {}) is None
    assert token_of(None) is None


def test_it_is_the_variable_s_where_no_file_is_named():
    assert token_of(token_source(None, ENVIRON)) == TOKEN


def test_a_file_wins_and_is_read_again_each_time(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("first.of.all\n")
    source = token_source(str(file), ENVIRON)
    assert token_of(source) == "first.of.all"
    file.write_text("second.of.all")
    assert token_of(source) == "second.of.all"


def test_a_dash_is_stdin(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TOKEN}\n"))
    source = token_source("-", ENVIRON)
    assert (token_of(source), token_of(source)) == (TOKEN, TOKEN)


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"a" * 8193, "é".encode(), b"\xff", b"se\0cret", b"secret\nsecret"])
def test_what_is_no_token_is_reported_without_it(content: bytes, tmp_path: Path):
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as refused:
        token_source(str(file), {})
    assert str(file) in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "words" not in str(refused.value)


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_file_that_cannot_be_read_is_reported(name: str, tmp_path: Path):
    with pytest.raises(SettingsError, match=r"--token-file .* cannot be read"):
        token_source(str(tmp_path / name), {})


def test_an_empty_variable_is_reported():
    with pytest.raises(SettingsError, match="KAFKA_CHAT_TOKEN has no token in it"):
        token_source(None, {"KAFKA_CHAT_TOKEN": ""})
