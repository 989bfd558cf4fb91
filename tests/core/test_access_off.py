"""Without `auth.issuers` nothing of tokens is needed, and an operator whom that surprises is warned once."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from kafka_chat.assembly import _authority
from kafka_chat.settings.model import ServerSettings, Settings
from kafka_chat.telemetry.metrics import Telemetry
from tests.support.deadlines import HANG_SECONDS
from tests.support.issuer import secret_auth

WITHOUT_THE_EXTRA = """
import sys

for name in ("joserfc", "cryptography"):
    sys.modules[name] = None  # so that importing it fails

import kafka_chat.asgi
import kafka_chat.application
import kafka_chat.assembly
import kafka_chat.client
import kafka_chat.cli.check
import kafka_chat.cli.listen
from kafka_chat.cli.main import main

sys.exit(main(["token", "--help"]))
"""


def test_all_but_tokens_works_without_the_extra(tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA],
        cwd=tmp_path,
        env={"KAFKA_CHAT_KAFKA__EMBEDDED": "true", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("host", "warned"), [("127.0.0.1", 0), ("::1", 0), ("localhost", 0), ("0.0.0.0", 1), ("::", 1), ("chat.example", 1)]
)
@pytest.mark.promise("p-access-off")
async def test_who_serves_more_than_this_machine_is_warned(host: str, warned: int, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    async with _authority(Settings(server=ServerSettings(host=host)), Telemetry()) as authority:
        assert authority is None
    assert [line.startswith("auth.off ") for line in caplog.messages] == [True] * warned


async def test_with_issuers_nobody_is_warned(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    settings = Settings(server=ServerSettings(host="0.0.0.0"), auth=secret_auth(tmp_path))
    async with _authority(settings, Telemetry()) as authority:
        assert authority is not None
    assert caplog.messages == []
