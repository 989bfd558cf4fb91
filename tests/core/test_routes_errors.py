"""Every route, asked in every wrong way: never anything but a status and `{"error": sentence, "field": name or null}`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quart_schema import RequestSchemaValidationError
from werkzeug.exceptions import BadRequest

from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.errors import BrokerError, PositionLost, TopicGone
from kafka_chat.settings.model import SendingSettings, Settings
from tests.support.deadlines import HANG_SECONDS
from tests.support.fake_service import Answer, app_with_service, ask

if TYPE_CHECKING:
    from kafka_chat.web.app import ChatApp

ON = Settings(sending=SendingSettings(enabled=True))
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"]
TARGETS = {  # what it is -> which methods it has
    "/receive-message/client/ada": {"GET", "HEAD", "OPTIONS"},
    "/receive-messages/user/ada": {"GET", "HEAD", "OPTIONS"},
    "/subscribing/ada": {"GET", "HEAD", "POST", "DELETE", "OPTIONS"},
    "/subscribing/ada/room1": {"GET", "HEAD", "POST", "DELETE", "OPTIONS"},
    "/send-message/chat/room1": {"GET", "HEAD", "POST", "OPTIONS"},
    "/health": {"GET", "HEAD", "OPTIONS"},
    "/ready": {"GET", "HEAD", "OPTIONS"},
    "/metrics": {"GET", "HEAD", "OPTIONS"},
    "/docs": {"GET", "HEAD", "OPTIONS"},
    "/redoc": {"GET", "HEAD", "OPTIONS"},
    "/openapi.json": {"GET", "HEAD", "OPTIONS"},
    "/assets/redoc-2.5.4/LICENSE": {"GET", "HEAD", "OPTIONS"},
}
NOWHERE = [
    "/",
    "//",
    "/nowhere",
    "/receive-message",
    "/subscribing",
    "/health/",
    "/docs/",
    "/assets/",
    "/favicon.ico",
    "/%00",
    "/%ff",
    "*",
    "",
]


def is_error(answer: Answer) -> bool:
    body = answer.json()
    return (
        answer.headers["content-type"] == "application/json"
        and set(body) == {"error", "field"}
        and isinstance(body["error"], str)
        and len(body["error"]) > 10
        and (body["field"] is None or isinstance(body["field"], str))
        and (answer.status != 405 or bool(answer.headers["allow"]))
        and (answer.status != 503 or int(answer.headers["retry-after"]) > 0)
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.promise("p-errors")
async def test_a_method_that_a_route_lacks_is_405_with_those_that_it_has(target: str, method: str):
    app, _ = app_with_service(ON)
    answer = await ask(app, method, target)
    if method in TARGETS[target]:
        assert answer.status != 405
        assert answer.status < 400 or is_error(answer)
    else:
        assert answer.status == 405
        assert is_error(answer)
        assert set(answer.headers["allow"].split(", ")) == TARGETS[target]
        assert method in answer.json()["error"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", NOWHERE)
@pytest.mark.promise("p-errors")
async def test_what_is_not_there_is_404(target: str, method: str):
    app, _ = app_with_service(ON)
    answer = await ask(app, method, target)
    assert answer.status == 404
    assert is_error(answer)


@pytest.mark.parametrize("target", [*TARGETS, "/nowhere"])
async def test_a_body_over_the_limit_is_413_wherever_it_is_sent(target: str):
    app, _ = app_with_service(ON)
    answer = await ask(app, "POST", target, body=b"x" * 65_537)
    assert answer.status == 413
    assert is_error(answer)
    assert "65536" in answer.json()["error"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_body_that_never_ends_is_408_after_a_while(method: str, autojump_clock: object):
    app, _ = app_with_service(ON)
    answer = await ask(app, method, "/subscribing/ada?topic=room1", body=b"a", stalled=True)
    assert answer.status == 408
    assert is_error(answer)


@pytest.mark.parametrize("target", TARGETS)
async def test_a_handshake_for_plain_http_is_refused(target: str):
    app, _ = app_with_service(ON)
    answer = await ask(app, "GET", target, websocket=True)
    if target in ("/receive-message/client/ada", "/receive-messages/user/ada", "/subscribing/ada", "/send-message/chat/room1"):
        assert answer.accepted
    else:
        assert answer.status == 400
        assert is_error(answer)


@pytest.mark.parametrize("host", ["", "[", "a..b", "\x80", "-", "x" * 300, "a b", "localhost:port", "xn--"])
async def test_a_host_that_is_none_is_nobodys_business(host: str):
    app, _ = app_with_service()
    assert (await ask(app, "GET", "/health", headers={"host": host})).status == 200
    assert (await ask(app, "GET", "/docs", headers={"host": host})).status == 200
    answer = await ask(app, "GET", "/receive-message/client/ada", headers={"host": host})
    assert answer.status == 426
    assert is_error(answer)


@pytest.mark.parametrize("scheme", ["http", "https", "wss", "ws"])
async def test_a_handshake_is_one_by_what_it_is_and_not_by_what_a_proxy_says(scheme: str):
    app, _ = app_with_service()
    answer = await ask(app, "GET", "/receive-message/client/%ff", websocket=True, scheme=scheme)
    assert answer.json()["field"] == "username"


async def test_no_answer_waits_for_a_thread():
    app, _ = app_with_service(ON)
    threads = trio.to_thread.current_default_thread_limiter()
    threads.total_tokens = 1
    await threads.acquire_on_behalf_of("this test, which keeps the only one")
    with trio.fail_after(HANG_SECONDS):
        for target in [*TARGETS, "/nowhere", "/subscribing/%ff"]:
            if not target.startswith("/assets/"):  # files are read in threads
                await ask(app, "GET", target)
            await ask(app, "PUT", target)
            await ask(app, "GET", target, websocket=True)


def raising(app: ChatApp, error: Exception) -> None:
    """Let `/subscribing/ada` raise `error`."""
    assert app.service is not None
    app.service.subscriptions.failing = error


async def test_a_bug_is_500_with_a_sentence_that_tells_nothing_and_a_traceback_in_the_log(caplog: pytest.LogCaptureFixture):
    app, _ = app_with_service()
    raising(app, RuntimeError("the secret of broker-7"))
    answer = await ask(app, "GET", "/subscribing/ada")
    assert answer.status == 500
    assert is_error(answer)
    assert "secret" not in answer.body.decode()
    assert "RuntimeError" not in answer.body.decode()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith("request.failed method=GET path=/subscribing/ada")
    assert record.exc_info is not None
    assert "the secret of broker-7" in caplog.text


@pytest.mark.parametrize("group", [lambda error: error, lambda error: ExceptionGroup("nursery", [error])], ids=["alone", "in a group"])
@pytest.mark.parametrize("error", [BrokerError("it would not"), TopicGone("the topic is another one by now", topic="kafka.chat.x")])
@pytest.mark.promise("p-503")
async def test_what_kafka_did_not_do_is_503(error: Exception, group):
    app, _ = app_with_service()
    raising(app, group(error))
    answer = await ask(app, "GET", "/subscribing/ada")
    assert answer.status == 503
    assert is_error(answer)
    assert answer.json()["error"] == str(error)


async def test_of_several_bugs_that_come_together_all_are_logged(caplog: pytest.LogCaptureFixture):
    app, _ = app_with_service()
    raising(app, ExceptionGroup("nursery", [RuntimeError("one"), BrokerError("two"), ValueError("three")]))
    answer = await ask(app, "GET", "/subscribing/ada")
    assert answer.status == 500
    assert is_error(answer)
    for bug in ("RuntimeError: one", "BrokerError: two", "ValueError: three"):
        assert bug in caplog.text


async def test_an_error_of_ours_that_no_route_expects_is_a_bug():
    app, _ = app_with_service()
    raising(app, PositionLost(asked=1, first_left=2))
    answer = await ask(app, "GET", "/subscribing/ada")
    assert answer.status == 500
    assert is_error(answer)


async def test_a_bug_in_a_handshake_is_500_as_well():
    app, service = app_with_service()

    def admit(username: str, options: SessionOptions, **_: object):
        raise RuntimeError("a bug")

    service.admit = admit
    answer = await ask(app, "GET", "/receive-message/client/ada", websocket=True)
    assert answer.status == 500
    assert is_error(answer)


@pytest.mark.parametrize(
    ("error", "field"),
    [(msgspec.ValidationError("Expected `int`, got `str` - at `$.limit`"), "limit"), (TypeError("not what was expected"), None)],
)
async def test_what_quart_schema_finds_wrong_is_an_error_like_all_others(error: Exception, field: str | None):
    app, _ = app_with_service()
    raising(app, RequestSchemaValidationError(error))
    answer = await ask(app, "GET", "/subscribing/ada")
    assert answer.status == 400
    assert is_error(answer)
    assert answer.json()["field"] == field


async def test_any_other_http_error_is_one_like_all_others():
    app, _ = app_with_service()
    raising(app, BadRequest())
    answer = await ask(app, "GET", "/subscribing/ada")
    assert answer.status == 400
    assert is_error(answer)


_ESCAPES = st.integers(0, 255).map(lambda byte: f"%{byte:02X}")
_PRINTABLE = st.sampled_from([chr(code) for code in range(0x21, 0x7F) if chr(code) != "?"])
_PATHS = st.lists(st.one_of(_ESCAPES, _PRINTABLE, st.just("/")), max_size=30).map("".join)
_QUERIES = st.one_of(
    st.lists(st.one_of(_ESCAPES, _PRINTABLE, st.sampled_from(["topic=", "&", "=", "+", "%", "?"])), max_size=30)
    .map("".join)
    .map(str.encode),
    st.binary(max_size=40),
)
_BODIES = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.dictionaries(st.sampled_from(["sender", "text", "tag", "more"]) | st.text(), inner) | st.lists(inner),
        max_leaves=6,
    ).map(lambda value: msgspec.json.encode(value) if _is_json(value) else repr(value).encode()),
)


def _is_json(value: object) -> bool:
    try:
        msgspec.json.encode(value)
    except (UnicodeEncodeError, TypeError):
        return False
    return True


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    method=st.sampled_from(METHODS),
    before=st.sampled_from(
        [
            "/receive-message/client/",
            "/receive-messages/user/",
            "/subscribing/",
            "/subscribing/ada/",
            "/send-message/chat/",
            "/assets/",
            "/health",
            "/",
            "http://[",
            "http://[::1/health",
            "http://host:port/subscribing/",
            "ws://",
            "*",
        ]
    ),
    path=_PATHS,
    query=_QUERIES,
    body=_BODIES,
    content_type=st.sampled_from(
        ["application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ";", "\xff/"]
    ),
    websocket=st.booleans(),
)
@pytest.mark.promise("p-errors")
async def test_whatever_is_asked_nothing_breaks(
    method: str, before: str, path: str, query: bytes, body: bytes, content_type: str, *, websocket: bool
):
    app, _ = app_with_service(ON)
    headers = {"content-type": content_type}
    answer = await ask(app, method, before + path, body=body, headers=headers, raw_query=query, websocket=websocket)
    if answer.status is None:
        assert websocket
        assert answer.accepted
    else:
        assert answer.status < 500
        assert answer.status < 400 or is_error(answer)


@pytest.mark.parametrize("websocket", [False, True])
@pytest.mark.parametrize(
    "path",
    [
        "//health",
        "//subscribing/ada",
        "/subscribing//room1",
        "/subscribing/ada//room1",
        "/health//",
        "/receive-message//client/ada",
        "/receive-message/client//",
        "///",
    ],
)
@pytest.mark.promise("p-empty-segment")
async def test_an_empty_segment_is_404_everywhere(path: str, *, websocket: bool):
    app, service = app_with_service(ON)
    for method in ("GET",) if websocket else ("GET", "POST", "DELETE"):
        answer = await ask(app, method, path, websocket=websocket)
        assert answer.status == 404
        assert is_error(answer)
    assert not service.subscriptions.followed


@pytest.mark.parametrize("websocket", [False, True])
@pytest.mark.parametrize(
    "target", ["http://[/", "http://[::1", "http://[/nowhere", "ws://[/nowhere", "http://a]b/nowhere", "mailto:[", "*"]
)
async def test_half_of_an_address_in_the_target_is_a_path_that_is_not_there(target: str, *, websocket: bool):
    app, _ = app_with_service(ON)
    answer = await ask(app, "GET", target, websocket=websocket)
    assert answer.status == 404
    assert is_error(answer)


async def test_a_target_that_names_the_host_is_the_path_behind_it():
    app, _ = app_with_service(ON)
    assert (await ask(app, "GET", "http://chat.example:8001/health")).status == 200
    assert (await ask(app, "GET", "http://[::1/health")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "websocket"),
    [
        ("GET", "/receive-message/client/ada", True),
        ("GET", "/subscribing/ada", True),
        ("GET", "/receive-message/client/ada/events", False),
        ("GET", "/history/room1", False),
        ("GET", "/subscribing/ada", False),
        ("POST", "/subscribing/ada", False),
        ("DELETE", "/subscribing/ada", False),
        ("POST", "/send-message/chat/room1", False),
        ("GET", "/health", False),
        ("GET", "/docs", False),
    ],
)
async def test_an_address_of_thousands_of_parameters_is_refused_on_every_route(method: str, path: str, *, websocket: bool):
    app, service = app_with_service(ON)
    answer = await ask(app, method, f"{path}?topic=room1&{'x=y&' * 7000}", websocket=websocket)
    assert answer.status == 400
    assert is_error(answer)
    assert "at most 500 are allowed" in answer.json()["error"]
    assert not service.subscriptions.followed
