"""`/kafka-chat.js`: the client for browsers, as any page may load it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import kafka_chat.web
from kafka_chat.settings.model import AccessSettings, Settings
from tests.support.fake_service import app_with_service, ask

CLIENT = Path(kafka_chat.web.__file__).with_name("browser_client") / "kafka-chat.js"


@pytest.mark.promise("p-browser-client")
async def test_the_client_is_served_as_a_module_that_any_page_may_load():
    app, _ = app_with_service()
    answer = await ask(app, "GET", "/kafka-chat.js", headers={"origin": "https://a.example"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.body == CLIENT.read_bytes()


async def test_only_pages_of_the_origins_that_are_allowed_may_load_the_client():
    app, _ = app_with_service(Settings(access=AccessSettings(origins=("https://a.example",))))
    allowed = await ask(app, "GET", "/kafka-chat.js", headers={"origin": "https://a.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    other = await ask(app, "GET", "/kafka-chat.js", headers={"origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers


async def test_a_browser_asks_each_time_and_is_told_when_nothing_has_changed():
    app, _ = app_with_service()
    answer = await ask(app, "GET", "/kafka-chat.js")
    assert answer.headers["cache-control"] == "no-cache"
    again = await ask(app, "GET", "/kafka-chat.js", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_the_client_is_in_the_wheel(tmp_path: Path):
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert "kafka_chat/web/browser_client/kafka-chat.js" in zipfile.ZipFile(wheel).namelist()
