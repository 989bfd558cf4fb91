"""Pages of other origins change nothing and get no stream; other host names are refused; no answer can be misused as a page."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from kafka_chat.settings.model import AccessSettings, SendingSettings, Settings
from kafka_chat.web.app import ChatApp, create_app
from tests.support.fake_service import Answer, FakeService, app_with_service, ask

SENDING = SendingSettings(enabled=True)
ANY = Settings(sending=SENDING)
OURS = "https://chat.example"
LISTED = Settings(access=AccessSettings(origins=(OURS,)), sending=SENDING)
NAMED = Settings(access=AccessSettings(hosts=("chat.example", "inside")), sending=SENDING)

FOREIGN = [
    {"origin": "https://other.example"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "https://other.example", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "Cross-Site"},
]
OWN = [
    {"origin": OURS},
    {"origin": OURS, "sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "none"},
    {},
]

Asked = tuple[str, str, bool]  # method, path, whether it is a handshake

NAMES = {"username": "ada", "chat": "room1", "name": "redoc-2.5.4/LICENSE"}
# Paths whose GET and HEAD only read. The list is repeated here, so that one more is opened only on purpose.
READING = {
    *("/receive-message/client/ada", "/receive-messages/user/ada", "/send-message/chat/room1"),  # 426: only a handshake does something
    *("/history/room1", "/subscribing/ada", "/health", "/ready", "/metrics"),
    *("/kafka-chat.js", "/openapi.json", "/redoc", "/docs", "/assets/redoc-2.5.4/LICENSE"),
}


def every_request() -> list[Asked]:
    """Return all that the application has a route for."""
    found = []
    for rule in create_app(ANY).url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", lambda match: NAMES[match[1]], rule.rule)
        methods = {"GET"} if rule.websocket else rule.methods or set()
        found += [(method, path, rule.websocket) for method in sorted(methods - {"OPTIONS"})]
    return found


async def sent(app: ChatApp, service: FakeService, asked: Asked, headers: dict[str, str]) -> tuple[Answer, bool]:
    """Return the answer, and whether something has changed or begun."""
    method, path, websocket = asked
    service.subscriptions.followed.clear()
    query = "?topic=room1" if path == "/subscribing/ada" and method != "GET" else ""
    body = {"sender": "ada", "text": "hello"} if path.startswith("/send-message/") and method == "POST" else None
    begun: list[Any] = []
    service.admitted = Watched(begun)  # type: ignore[assignment]
    answer = await ask(app, method, path + query, websocket=websocket, json_body=body, headers=headers)
    return answer, bool(begun or service.subscriptions.followed or service.sending.sent)


class Watched(list[str]):
    """A list that keeps what was ever in it elsewhere, too."""

    def __init__(self, ever: list[str]) -> None:
        self._ever = ever

    def append(self, one: str) -> None:
        self._ever.append(one)
        super().append(one)


@pytest.mark.promise("p-origins", "p-origins-are-for-pages")
async def test_once_origins_are_listed_a_page_of_another_only_reads() -> None:
    app, service = app_with_service(LISTED)
    for asked, headers in product(every_request(), FOREIGN):
        method, path, websocket = asked
        answer, something_happened = await sent(app, service, asked, headers)
        if not websocket and method in ("GET", "HEAD") and path in READING:
            assert answer.status != 403, (asked, headers)
            assert not any(name.startswith("access-control-allow") for name in answer.headers), (asked, headers)
        else:
            assert answer.status == 403, (asked, headers)
            assert not something_happened, (asked, headers)
            assert method == "HEAD" or "access.origins" in answer.json()["error"]


@pytest.mark.promise("p-no-browser")
async def test_a_listed_page_our_own_and_what_is_no_browser_are_let_in() -> None:
    app, service = app_with_service(LISTED)
    for asked, headers in product(every_request(), OWN):
        answer, _ = await sent(app, service, asked, headers)
        assert answer.accepted or answer.status != 403, (asked, headers)


async def test_where_any_origin_is_allowed_nothing_is_refused() -> None:
    app, service = app_with_service(ANY)
    for asked, headers in product(every_request(), FOREIGN):
        answer, _ = await sent(app, service, asked, headers)
        assert answer.accepted or answer.status != 403, (asked, headers)


async def test_a_route_that_somebody_adds_is_closed_to_pages_of_others() -> None:
    app, _ = app_with_service(LISTED)

    @app.route("/new", methods=["GET", "PUT"])
    async def new() -> str:
        return "changed"

    for method in ("GET", "PUT"):
        assert (await ask(app, method, "/new", headers={"origin": "https://other.example"})).status == 403
        assert (await ask(app, method, "/new")).status == 200


RIGHT_HOSTS = [
    "chat.example",
    "Chat.Example:8001",
    "chat.example.:443",
    "inside",
    "localhost:8001",
    "127.0.0.1:8001",
    "[::1]:8001",
    "[::1]",
]
WRONG_HOSTS = ["evil.example:8001", "xchat.example", "chat.example.evil.example", "localhost.evil.example", "127.0.0.1.nip.example", ""]


@pytest.mark.promise("p-refused-403", "p-hosts", "p-rebinding")
async def test_once_hosts_are_named_no_other_is_served() -> None:
    app, service = app_with_service(NAMED)
    for asked, host in product(every_request(), WRONG_HOSTS):
        answer, something_happened = await sent(app, service, asked, {"host": host})
        assert answer.status == 403, (asked, host)
        assert not something_happened, (asked, host)
        assert asked[0] == "HEAD" or "access.hosts" in answer.json()["error"]
    for asked, host in product(every_request(), RIGHT_HOSTS):
        answer, _ = await sent(app, service, asked, {"host": host})
        assert answer.accepted or answer.status != 403, (asked, host)


async def test_what_has_no_route_is_not_served_under_another_host_either() -> None:
    app, _ = app_with_service(NAMED)
    for method, path in (("GET", "/nowhere"), ("OPTIONS", "/nowhere"), ("POST", "/nowhere"), ("OPTIONS", "/subscribing/ada")):
        assert (await ask(app, method, path, headers={"host": "evil.example"})).status == 403


@pytest.mark.parametrize("websocket", [False, True])
@pytest.mark.parametrize(
    "named", ["http://evil.example", "http://evil.example:8001", "http://chat.example@evil.example", "ws://[", "http://"]
)
async def test_a_host_in_the_target_counts_as_the_header_does(named: str, *, websocket: bool) -> None:
    app, _ = app_with_service(NAMED)
    path = "/receive-message/client/ada" if websocket else "/health"
    answer = await ask(app, "GET", f"{named}{path}", headers={"host": "chat.example"}, websocket=websocket)
    assert answer.status == 403
    answer = await ask(app, "GET", f"http://Chat.Example:80{path}", headers={"host": "chat.example"}, websocket=websocket)
    assert answer.accepted or answer.status == 200
    assert (await ask(app, "OPTIONS", "*", headers={"host": "chat.example"})).status == 404


async def test_any_host_is_served_where_none_is_named() -> None:
    app, _ = app_with_service(ANY)
    for host in [*RIGHT_HOSTS, *WRONG_HOSTS, "\xff", "[", ":"]:
        assert (await ask(app, "GET", "/health", headers={"host": host})).status == 200


@pytest.mark.parametrize("settings", [ANY, LISTED, NAMED], ids=["any", "origins", "hosts"])
@pytest.mark.promise("p-page-headers")
async def test_no_answer_is_framed_sniffed_or_names_its_address_to_others(settings: Settings) -> None:
    app, service = app_with_service(settings)
    strict = {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
    further = [("GET", "/nowhere", False), ("GET", "/nowhere", True), ("PUT", "/health", False), ("OPTIONS", "/health", False)]
    for asked, headers in product([*every_request(), *further], ({}, {"origin": "https://other.example", "host": "evil.example"})):
        answer, _ = await sent(app, service, asked, headers)
        if answer.accepted:
            continue
        assert answer.headers["x-content-type-options"] == "nosniff", asked
        assert answer.headers["referrer-policy"] == "no-referrer", asked
        policy = dict(directive.strip().partition(" ")[::2] for directive in answer.headers["content-security-policy"].split(";"))
        if asked[1] in ("/docs", "/redoc") and answer.status == 200:  # they run scripts of ours
            assert strict.items() <= policy.items()
            assert not re.search(r"\*|http:|https:|unsafe-eval", answer.headers["content-security-policy"])
            assert "unsafe-inline" not in policy["script-src"]
        else:
            assert policy == strict, asked


async def test_a_bug_has_these_headers_too() -> None:
    app, service = app_with_service(ANY)
    service.subscriptions.failing = RuntimeError("a bug")
    answer = await ask(app, "GET", "/subscribing/ada")
    assert answer.status == 500
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
