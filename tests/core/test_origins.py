"""Which web pages may use the service: every answer says so to browsers, and a handshake is refused."""

from __future__ import annotations

import pytest

from kafka_chat.errors import BrokerUnreachable
from kafka_chat.settings.model import AccessSettings, SendingSettings, Settings
from tests.support.fake_service import Answer, app_with_service, ask

ANY = Settings(sending=SendingSettings(enabled=True))
OURS = "https://chat.example"
LISTED = Settings(access=AccessSettings(origins=(OURS, "http://localhost:3000")), sending=SendingSettings(enabled=True))
ASKED = {  # -> the status of the answer
    ("GET", "/health"): 200,
    ("GET", "/docs"): 200,
    ("GET", "/redoc"): 200,
    ("GET", "/openapi.json"): 200,
    ("GET", "/metrics"): 200,
    ("GET", "/assets/redoc-2.5.4/LICENSE"): 200,
    ("GET", "/subscribing/ada"): 200,
    ("POST", "/subscribing/ada?topic=room1"): 200,
    ("POST", "/subscribing/ada/room1"): 200,
    ("POST", "/subscribing/ada"): 400,
    ("GET", "/history/room1"): 200,
    ("GET", "/nowhere"): 404,
    ("PUT", "/health"): 405,
    ("POST", "/send-message/chat/room1"): 415,
    ("GET", "/receive-message/client/ada"): 426,
}
asked = pytest.mark.parametrize(("method", "target"), ASKED, ids=[f"{method} {target}" for method, target in ASKED])


def cors(answer: Answer) -> dict[str, str]:
    prefix = "access-control-"
    found = {name.removeprefix(prefix): value for name, value in answer.headers.items() if name.startswith(prefix)}
    assert "allow-credentials" not in found
    return found


@asked
@pytest.mark.promise("p-cors")
async def test_every_answer_may_be_read_by_pages_of_any_origin(method: str, target: str):
    app, _ = app_with_service(ANY)
    for headers in ({"origin": "https://any.example"}, {"origin": "null"}, {}):
        answer = await ask(app, method, target, headers=headers)
        assert answer.status == ASKED[method, target]
        assert cors(answer) == {"allow-origin": "*", "expose-headers": "Allow, ETag, Link, Preference-Applied, Retry-After"}
        assert "Origin" not in answer.headers.get("vary", "")


@asked
@pytest.mark.promise("p-cors")
async def test_once_origins_are_listed_only_their_pages_may_read(method: str, target: str):
    app, _ = app_with_service(LISTED)
    for origin in (OURS, "http://localhost:3000"):
        answer = await ask(app, method, target, headers={"origin": origin})
        assert answer.status == ASKED[method, target]
        assert cors(answer) == {"allow-origin": origin, "expose-headers": "Allow, ETag, Link, Preference-Applied, Retry-After"}
        assert answer.headers["vary"] == "Origin"
    for headers in ({"origin": "https://other.example"}, {"origin": OURS + ".evil.example"}, {"origin": "null"}, {"origin": "*"}, {}):
        answer = await ask(app, method, target, headers=headers)
        refused = bool(headers) and method != "GET" and ASKED[method, target] not in (404, 405)
        assert answer.status == (403 if refused else ASKED[method, target])
        assert cors(answer) == {}
        assert answer.headers["vary"] == "Origin"


async def test_what_is_too_large_broken_or_not_to_be_had_may_be_read_too():
    app, service = app_with_service(ANY)
    assert cors(await ask(app, "POST", "/subscribing/ada", body=b"x" * 65_537))["allow-origin"] == "*"
    for error, status in ((BrokerUnreachable("no broker answered"), 503), (RuntimeError("a bug"), 500)):
        service.subscriptions.failing = error
        answer = await ask(app, "GET", "/subscribing/ada")
        assert answer.status == status
        assert cors(answer)["allow-origin"] == "*"
    app.service = None
    answer = await ask(app, "GET", "/subscribing/ada")
    assert answer.status == 503
    assert cors(answer)["allow-origin"] == "*"


@pytest.mark.parametrize(
    ("target", "methods"),
    [
        ("/subscribing/ada?topic=room1", {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}),
        ("/send-message/chat/room1", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/health", {"GET", "HEAD", "OPTIONS"}),
    ],
)
@pytest.mark.parametrize("settings", [ANY, LISTED], ids=["any", "listed"])
@pytest.mark.promise("p-preflights")
async def test_a_preflight_is_told_what_is_possible(settings: Settings, target: str, methods: set[str]):
    app, service = app_with_service(settings)
    headers = {"origin": OURS, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    answer = await ask(app, "OPTIONS", target, headers=headers)
    assert answer.status == 200
    found = cors(answer)
    assert set(found.pop("allow-methods").split(", ")) == methods
    assert found == {
        "allow-origin": "*" if settings is ANY else OURS,
        "allow-headers": "*, Authorization",
        "max-age": "7200",
    }
    assert not service.subscriptions.followed


async def test_a_preflight_of_a_page_that_may_not_is_told_nothing():
    app, _ = app_with_service(LISTED)
    headers = {"origin": "https://other.example", "access-control-request-method": "POST"}
    assert cors(await ask(app, "OPTIONS", "/subscribing/ada", headers=headers)) == {}


HANDSHAKES = ["/receive-message/client/ada", "/receive-messages/user/ada", "/subscribing/ada?topic=room1", "/send-message/chat/room1"]


@pytest.mark.parametrize("target", HANDSHAKES)
@pytest.mark.promise("p-refused-403")
async def test_a_handshake_from_a_page_that_may_not_is_refused_before_the_accept(target: str):
    app, service = app_with_service(LISTED)
    for origin in ("https://other.example", "http://chat.example", "null", "", "\xff", f"{OURS}, https://other.example"):
        answer = await ask(app, "GET", target, websocket=True, headers={"origin": origin})
        assert answer.status == 403
        assert answer.headers["content-type"] == "application/json"
        assert "access.origins" in answer.json()["error"]
        assert answer.json()["field"] is None
    assert not service.admitted
    assert not service.subscriptions.followed


@pytest.mark.parametrize("target", HANDSHAKES)
async def test_a_handshake_from_a_page_that_may_or_from_no_browser_is_accepted(target: str):
    app, _ = app_with_service(LISTED)
    for headers in ({"origin": OURS}, {"origin": "http://localhost:3000"}, {}):
        assert (await ask(app, "GET", target, websocket=True, headers=headers)).accepted
    app, _ = app_with_service(ANY)
    assert (await ask(app, "GET", target, websocket=True, headers={"origin": "https://any.example"})).accepted
