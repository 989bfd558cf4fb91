"""`/receive-message/client/{username}`: which clients are accepted, and how the others are refused."""

from __future__ import annotations

import pytest

from kafka_chat.delivery.session.options import SessionOptions
from tests.support.fake_service import app_with_service, ask

BAD_NAMES = {
    "empty": "",
    "an encoded slash": "a%2Fb",
    "a slash": "a/b",
    "a slash at the end": "ada/",
    "256 bytes": "a" * 256,
    "256 bytes of UTF-8": "%C3%A9" * 128,
    "NUL": "a%00",
    "a line end": "a%0Ab",
    "DEL": "%7F",
    "a C1 control character": "%C2%85",
    "a byte that is no UTF-8": "%ff",
    "half of a character": "%C3",
    "an encoded surrogate": "%ED%A0%80",
    "an overlong slash": "%C0%AF",
}
bad_names = pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())


@bad_names
@pytest.mark.parametrize(
    ("method", "path", "websocket"),
    [
        ("GET", "/receive-message/client/", True),
        ("GET", "/receive-message/client/", False),
        ("GET", "/receive-messages/user/", True),
        ("GET", "/receive-messages/user/", False),
        ("GET", "/subscribing/", True),
        ("GET", "/subscribing/", False),
        ("POST", "/subscribing/", False),
        ("DELETE", "/subscribing/", False),
    ],
    ids=["handshake", "plain GET", "old handshake", "plain GET of the old", "dialogue", "list", "subscribe", "unsubscribe"],
)
@pytest.mark.promise("p-username")
async def test_a_name_that_is_none_is_refused_by_name(method: str, path: str, name: str, *, websocket: bool):
    app, service = app_with_service()
    answer = await ask(app, method, path + name + ("?topic=x" if method == "POST" else ""), websocket=websocket)
    if method == "POST" and name in ("a/b", "ada/"):  # the earlier system's path for a user and a chat
        assert answer.status == (200 if name == "a/b" else 400)
        return
    assert answer.status == 400
    assert answer.json()["field"] == "username"
    assert not answer.accepted
    assert not service.admitted


@bad_names
@pytest.mark.parametrize("path", ["/receive-message/client/", "/receive-messages/user/"])
@pytest.mark.promise("p-username-4400")
async def test_a_name_that_is_none_is_told_to_who_offers_the_subprotocol_by_a_close_frame_which_browsers_show(path: str, name: str):
    app, service = app_with_service()
    plain = await ask(app, "GET", path + name, websocket=True)
    answer = await ask(app, "GET", path + name, websocket=True, subprotocols=["kafka-chat.v1"])
    assert answer.close == (4400, plain.json()["error"])
    assert not service.admitted


@pytest.mark.parametrize(
    ("name", "username"),
    [
        ("ada", "ada"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("%F0%9F%98%80", "😀"),
        ("Ju%CC%88rgen", "Jürgen"),
        ("a%3Fb%23c%25", "a?b#c%"),
        ("..", ".."),
        ("a" * 255, "a" * 255),
        ("%E2%80%A8", "\u2028"),
    ],
)
async def test_a_handshake_gets_a_place_under_the_name_that_it_gave(name: str, username: str):
    app, service = app_with_service()
    seen: list[str] = []
    admit = service.admit

    def watched(name: str, options: SessionOptions, **_: object):
        seen.append(name)
        return admit(name, options)

    service.admit = watched
    answer = await ask(app, "GET", f"/receive-message/client/{name}?any=thing", websocket=True)
    assert answer.accepted
    assert seen == [username]
    assert not service.admitted  # the place is given back


@pytest.mark.promise("p-refused-503")
async def test_where_no_place_is_left_the_handshake_is_refused_with_a_status():
    app, service = app_with_service()
    service.places = 0
    answer = await ask(app, "GET", "/receive-message/client/ada", websocket=True)
    assert answer.status == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"error": "all places are taken; try again later", "field": None}


@pytest.mark.promise("p-refused-426")
async def test_plain_http_is_told_how_to_connect():
    app, _ = app_with_service()
    answer = await ask(app, "GET", "/receive-message/client/a%20b")
    assert answer.status == 426
    assert answer.headers["upgrade"] == "websocket"
    assert "new WebSocket(" in answer.json()["error"]
    assert "localhost" not in answer.json()["error"]  # a proxy may have it elsewhere, and below a path
    assert answer.json()["field"] is None


async def test_a_handshake_elsewhere_is_told_where_to_go():
    app, _ = app_with_service()
    elsewhere = await ask(app, "GET", "/health", websocket=True)
    assert elsewhere.status == 400
    assert "/receive-message/client/" in elsewhere.json()["error"]
    nowhere = await ask(app, "GET", "/nowhere", websocket=True)
    assert nowhere.status == 404
    assert nowhere.json()["field"] is None
