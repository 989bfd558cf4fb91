"""`/openapi.json`, `/docs`, `/redoc`: true to the routes, and at home in a closed network."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

import kafka_chat.web
from kafka_chat.client.come_again import CLOSE_CODES
from kafka_chat.delivery.session.notices import Notice
from kafka_chat.settings.model import AccessSettings, KafkaSettings, Settings
from kafka_chat.web.documents.openapi import ASSETS
from tests.support.fake_service import app_with_service, ask
from tests.support.issuer import secret_auth

ASSETS_DIRECTORY = Path(kafka_chat.web.__file__).with_name("documents") / "assets"
PROTOCOL = (Path(__file__).parents[2] / "docs/protocol.md").read_text()
ERROR = {"$ref": "#/components/schemas/ErrorBody"}
OPERATIONS = {
    ("/receive-message/client/{username}", "get"): {"101", "400", "403", "426", "500", "503"},
    ("/receive-message/client/{username}/events", "get"): {"200", "400", "403", "500", "503"},
    ("/receive-message/client/{username}/events", "post"): {"200", "400", "403", "413", "415", "500", "503"},
    ("/history/{chat}", "get"): {"200", "304", "400", "403", "404", "500", "503"},
    ("/receive-messages/user/{username}", "get"): {"101", "400", "403", "426", "500", "503"},
    ("/subscribing/{username}/{chat}", "post"): {"200", "400", "403", "409", "413", "500", "503"},
    ("/send-message/chat/{chat}", "get"): {"101", "400", "403", "426", "500", "503"},
    ("/subscribing/{username}", "get"): {"101", "200", "400", "403", "405", "500", "503"},
    ("/subscribing/{username}", "post"): {"200", "400", "403", "409", "413", "500", "503"},
    ("/subscribing/{username}", "delete"): {"200", "400", "403", "409", "413", "500", "503"},
    ("/send-message/chat/{chat}", "post"): {"200", "400", "403", "404", "413", "415", "500", "503"},
    ("/health", "get"): {"200"},
    ("/ready", "get"): {"200", "503"},
    ("/metrics", "get"): {"200"},
}


async def the_document() -> dict[str, Any]:
    app, _ = app_with_service()
    answer = await ask(app, "GET", "/openapi.json")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    document: dict[str, Any] = answer.json()
    return document


async def test_the_document_is_openapi_3_1():
    document = await the_document()
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


@pytest.mark.promise("p-pages-of-documents")
async def test_the_document_has_every_route_with_every_status():
    document = await the_document()
    found = {(path, method): set(operation["responses"]) for path, item in document["paths"].items() for method, operation in item.items()}
    assert found == OPERATIONS


async def test_every_operation_and_every_status_is_described_with_what_its_body_is():
    document = await the_document()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["summary"], (path, method)
            assert len(operation["description"]) > 20, (path, method)
            assert operation["tags"][0] in [tag["name"] for tag in document["tags"]]
            for parameter in operation["parameters"]:
                assert parameter["description"], (path, method, parameter)
                assert parameter["example"], (path, method, parameter)
            for status, response in operation["responses"].items():
                assert len(response["description"]) > 5, (path, method, status)
                if status in ("101", "304"):
                    continue
                ((media, content),) = response["content"].items()
                if int(status) >= 400 and path != "/ready":
                    assert (media, content["schema"]) == ("application/json", ERROR), (path, method, status)
                    assert set(content["example"]) == {"error", "field"}


async def test_every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own():
    document = await the_document()
    references = set(re.findall(r"'#/components/schemas/(\w+)'", repr(document)))
    assert references == set(document["components"]["schemas"])
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names))


async def test_every_field_of_every_answer_is_described():
    schemas = (await the_document())["components"]["schemas"]
    for model in ("ErrorBody", "Ready", "NotReady", "Following", "FollowedChat", "Outgoing", "Beginning"):
        assert "Attributes" not in schemas[model]["description"]
        for name, field in schemas[model]["properties"].items():
            assert field["description"], (model, name)
    assert schemas["FollowedChat"]["properties"]["default"]["description"] == "whether everybody follows it."


DELIVERY = '{"sender": "bob", "text": "hello", "tag": null, "chat": "room1"}'


@pytest.mark.parametrize(
    ("path", "frames"),
    {
        "/receive-message/client/{username}": [DELIVERY],
        "/receive-messages/user/{username}": [DELIVERY],
        "/subscribing/{username}": ["room1", '{"username": "ada", "chats": [', '{"error": ', "?topic="],
        "/send-message/chat/{chat}": ['{"sender": "ada", "text": "hello", "tag": "greeting"}', '{"topic": ', '{"error": '],
    }.items(),
)
async def test_each_websocket_is_described_with_its_frames_and_close_codes_and_an_example(path: str, frames: list[str]):
    operation = (await the_document())["paths"][path]["get"]
    assert "(WebSocket)" in operation["summary"]
    for piece in (*frames, "1002", "1007", "1008", "1009", "1011", "1012", "1006", "new WebSocket(", path.partition("{")[0].lstrip("/")):
        assert piece in operation["description"]


def rows(text: str) -> list[list[str]]:
    """The rows of a table in Markdown whose first cell is a number, or a name in backticks."""
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if re.match(r"\| (\d|`)", line)]


def come_again(text: str) -> dict[int, bool]:
    """Close code -> whether a client comes again, by the first and the last column of a table."""
    return {int(row[0]): row[-1].startswith("yes") for row in rows(text) if re.fullmatch(r"[14]\d{3}", row[0])}


OF_OTHERS = {1001, 1005, 1014, 1015}  # the service sends none of them: they are a client's, a proxy's, or a library's own


@pytest.mark.parametrize("path", ["/receive-message/client/{username}", "/subscribing/{username}", "/send-message/chat/{chat}"])
async def test_the_close_codes_are_those_of_the_protocol_with_the_same_answer(path: str):
    section = PROTOCOL.partition("### When to reconnect\n")[2].partition("\n#")[0]
    of_no_use = {int(row[0]) for row in rows(section) if "not used" in row[1]}
    of_the_service = {code: answer for code, answer in come_again(section).items() if code not in OF_OTHERS | of_no_use}
    assert len(of_the_service) > 8
    described = (await the_document())["paths"][path]["get"]["description"].partition("Close codes:")[2]
    assert come_again(described) == of_the_service
    clients = {code: pause is not None for code, pause in CLOSE_CODES.items()}
    assert of_the_service.items() <= clients.items()


def types_listed(text: str) -> set[str]:
    """The names in backticks of the list that begins with `hello`."""
    return set(re.findall(r"`(\w+)`", re.search(r"`hello`(?:,?\s+(?:and\s+)?`\w+`)+", text)[0]))  # type: ignore[index]


async def test_the_frames_that_are_listed_are_those_of_the_protocol():
    """`skipped` is made with its record, all others are of `notices.py`; `end` is of event streams, and the answers of WebSockets."""
    section = PROTOCOL.partition("## Control frames\n")[2].partition("\n#")[0]
    control = {name for row in rows(section) for name in re.findall(r"`(\w+)`", row[0])}
    unasked, on_request = {"end", "skipped"}, {"sent", "pong", "heartbeat", "error", "challenge", "authorized"}
    assert {kind.__struct_config__.tag for kind in kinds_of(Notice)} - {"end"} == control - {"skipped"}
    paths = (await the_document())["paths"]
    for path in ("/receive-message/client/{username}", "/receive-messages/user/{username}"):
        assert types_listed(paths[path]["get"]["description"]) == control
    assert types_listed(paths["/receive-message/client/{username}/events"]["get"]["description"]) == (control | unasked) - on_request


def kinds_of(kind: type[Notice]) -> list[type[Notice]]:
    """All that are sent: the classes that have no further ones."""
    below = kind.__subclasses__()
    return [leaf for one in below for leaf in kinds_of(one)] if below else [kind]


async def test_the_earlier_system_s_paths_are_marked():
    document = await the_document()
    marked = {path for path, item in document["paths"].items() for operation in item.values() if operation["tags"] == ["Compatibility"]}
    assert marked == {"/receive-messages/user/{username}", "/subscribing/{username}/{chat}", "/send-message/chat/{chat}"}


async def test_what_is_described_is_what_is_answered():
    document = await the_document()
    app, _ = app_with_service(Settings(kafka=KafkaSettings(embedded=True)))
    schemas = document["components"]["schemas"]
    following = (await ask(app, "GET", "/subscribing/ada")).json()
    assert set(following) == set(schemas["Following"]["required"])
    assert set(following["chats"][0]) == set(schemas["FollowedChat"]["required"])
    published = (await ask(app, "POST", "/send-message/chat/room1", json_body={"sender": "ada", "text": "hello"})).json()
    assert set(published) == set(schemas["Published"]["required"])
    error = (await ask(app, "GET", "/nowhere")).json()
    assert set(error) == set(schemas["ErrorBody"]["required"])


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href", "spec-url", "action", "data") and value]


@pytest.mark.parametrize(("page", "prefix"), [("/docs", ""), ("/redoc", ""), ("/docs", "/chats"), ("/redoc", "/chats")])
@pytest.mark.promise("p-pages-of-documents")
async def test_a_page_asks_nobody_but_us(page: str, prefix: str):
    app, _ = app_with_service()
    answer = await ask(app, "GET", prefix + page, root_path=prefix)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    text = answer.body.decode()
    assert text.startswith("<!doctype html>")
    assert text.count("<head>") == 1
    assert '<meta name="viewport"' in text
    assert answer.headers["content-length"] == str(len(answer.body))
    assert "//" not in text  # no other host is named, whatever for
    parser = _Addresses()
    parser.feed(text)
    parser.found.remove("data:,")  # the icon, so that nobody asks for /favicon.ico
    parser.found += re.findall(r'url: "([^"]*)"', text)
    assert len(parser.found) >= 2
    for address in parser.found:
        target = urlsplit(urljoin(f"http://localhost:8001{prefix}{page}", address))
        assert target.netloc == "localhost:8001"
        assert (await ask(app, "GET", target.path, root_path=prefix)).status == 200, address


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_a_page_lets_the_browser_ask_nobody_but_us_either(page: str):
    app, _ = app_with_service()
    policy = dict(part.strip().split(" ", 1) for part in (await ask(app, "GET", page)).headers["content-security-policy"].split(";"))
    assert policy.pop("default-src") == "'none'"
    for sources in policy.values():
        for source in sources.split():
            assert source in ("'self'", "'none'", "data:", "blob:", "'unsafe-inline'") or source.startswith("'sha256-")
    assert "'unsafe-inline'" not in policy["script-src"]


@pytest.mark.parametrize(("name", "content_type"), ASSETS.items())
async def test_an_asset_is_served_with_its_type_and_may_be_kept_for_long(name: str, content_type: str):
    app, _ = app_with_service()
    answer = await ask(app, "GET", f"/assets/{name}")
    assert answer.status == 200
    assert answer.headers["content-type"] == f"{content_type}; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.body == (ASSETS_DIRECTORY / name).read_bytes()
    again = await ask(app, "GET", f"/assets/{name}", headers={"if-none-match": answer.headers["etag"]})
    assert again.status == 304
    assert again.body == b""


async def test_a_piece_of_an_asset_is_served_and_one_that_it_lacks_is_an_error_like_all_others():
    app, _ = app_with_service()
    piece = await ask(app, "GET", f"/assets/{next(iter(ASSETS))}", headers={"range": "bytes=0-9"})
    assert (piece.status, len(piece.body)) == (206, 10)
    lacking = await ask(app, "GET", f"/assets/{next(iter(ASSETS))}", headers={"range": "bytes=99999999-"})
    assert lacking.status == 416
    assert set(lacking.json()) == {"error", "field"}


@pytest.mark.parametrize(
    "name", ["README.md", "../app.py", "%2e%2e/app.py", "..%2fapp.py", "redoc-2.5.4", "redoc-2.5.4/", "/etc/passwd", "%00"]
)
async def test_nothing_else_is_served_as_an_asset(name: str):
    app, _ = app_with_service()
    assert (await ask(app, "GET", f"/assets/{name}")).status == 404


def test_the_assets_are_those_that_their_list_says():
    listed = dict(
        reversed(line.split("  "))
        for line in (ASSETS_DIRECTORY / "README.md").read_text().splitlines()
        if re.match(r"[0-9a-f]{64}  ", line)
    )
    assert set(listed) == set(ASSETS)
    for name, digest in listed.items():
        assert hashlib.sha256((ASSETS_DIRECTORY / name).read_bytes()).hexdigest() == digest, name
    shipped = {str(path.relative_to(ASSETS_DIRECTORY)) for path in ASSETS_DIRECTORY.rglob("*") if path.is_file()}
    assert shipped == {*ASSETS, "README.md"}


async def test_where_tokens_are_asked_for_the_document_says_on_which_ways_and_where_they_may_be(tmp_path: Path):
    auth = secret_auth(tmp_path, anonymous=("news",), cookie="chat_token", query=True)
    app, _ = app_with_service(Settings(auth=auth, access=AccessSettings(origins=("https://chat.example",))))
    document = (await ask(app, "GET", "/openapi.json")).json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["token"] == {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}  # the page offers "Authorize" for it
    assert {name: (scheme["in"], scheme["name"]) for name, scheme in schemes.items() if name != "token"} == {
        "cookie": ("cookie", "chat_token"),
        "query": ("query", "access_token"),
    }
    one_of: list[dict[str, list[str]]] = [{"token": []}, {"cookie": []}, {"query": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            needs_token = path not in ("/health", "/ready")
            anonymous = [{}] if path.startswith(("/receive-", "/history")) else []
            assert operation.get("security") == ([*one_of, *anonymous] if needs_token else None), path
            assert ("401" in operation["responses"]) is needs_token
    assert "persistAuthorization" not in (await ask(app, "GET", "/docs")).body.decode()  # a token that is pasted there is not kept
