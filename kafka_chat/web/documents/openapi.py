"""The OpenAPI document of all routes, WebSockets included, and pages that show it without another host."""

from __future__ import annotations

import base64
import hashlib
import inspect
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from msgspec.json import schema_components
from quart import Blueprint, abort, request, send_from_directory
from quart_schema import Info, OpenAPIProvider, QuartSchema, Tag, document_response, hide

from ...access.decision import CHALLENGE, Need
from ..requests.errors import ErrorBody
from ..requests.needs import need_of, needs
from ..requests.token import PARAMETER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quart import Quart, Response
    from werkzeug.routing import Rule
    from werkzeug.routing.converters import BaseConverter

    from ...settings.model import AuthSettings

Route = TypeVar("Route", bound=Callable[..., Any])
Fragment = dict[str, Any]  # a part of an OpenAPI document

SWAGGER_UI = "swagger-ui-5.33.1"
REDOC = "redoc-2.5.4"
ASSETS = {  # path below assets/ -> content type, UTF-8 all of them; nothing else there is served
    f"{SWAGGER_UI}/swagger-ui-bundle.js": "text/javascript",
    f"{SWAGGER_UI}/swagger-ui.css": "text/css",
    f"{SWAGGER_UI}/LICENSE": "text/plain",
    f"{REDOC}/redoc.standalone.js": "text/javascript",
    f"{REDOC}/redoc.standalone.js.LICENSE.txt": "text/plain",
    f"{REDOC}/LICENSE": "text/plain",
}
ASSET_SECONDS = 365 * 24 * 3600  # a directory's name has the version, so its files never change

_ABOUT = """\
Chats live in Kafka, one topic each; this service delivers them over WebSockets.

1. `POST /subscribing/ada?topic=room1` makes the user `ada` follow the chat `room1`, which is the Kafka topic
   `kafka.chat.room1`. Everybody follows the default chats (`global`) without asking.
2. A WebSocket to `/receive-message/client/ada` gets every message of those chats, from the moment it is open, as one
   text frame of JSON each.
3. Any Kafka producer writes messages; where `sending.enabled` is on, so does
   `POST /send-message/chat/room1`.

`/subscribing/ada` is also a WebSocket, for clients that subscribe by text frames. Each WebSocket is described below with its
frames and close codes.

Every error is answered with `{"error": "<sentence>", "field": "<name>" or null}`, also before a WebSocket is accepted.
"""

_TAGS = [
    Tag("Messages", description="Read and write messages."),
    Tag("Subscriptions", description="Who follows which chats."),
    Tag("Operation", description="For operators of the service."),
    Tag("Compatibility", description="Paths of an earlier system, for its clients. New clients use the other paths."),
]

_PARAMETERS: dict[str, Fragment] = {
    "username": {
        "description": "Whose chats: 1 to 255 bytes of UTF-8, percent-encoded, normalized to Unicode NFC; "
        "no control characters and no slash, not even percent-encoded.",
        "example": "ada",
    },
    "chat": {
        "description": "A chat (`room1`) or its topic (`kafka.chat.room1`): `A-Z a-z 0-9 . _ -`.",
        "example": "room1",
    },
}

_REFUSALS: dict[int, tuple[str, ErrorBody]] = {
    400: (
        "A parameter, or a field of the body, is wrong; `field` names it.",
        ErrorBody("username has 300 bytes of UTF-8; 1 to 255 are allowed", "username"),
    ),
    401: (
        "No token, or one that is not valid or has expired. Only where tokens are asked for (`auth.issuers`).",
        ErrorBody("a valid token is needed", None),
    ),
    403: (
        "A page of this origin may not do this (`access.origins`), the service may not be addressed by this name (`access.hosts`), "
        "sending is switched off, or the token does not allow it.",
        ErrorBody("pages of the origin 'https://x.example' may not use this service (access.origins)", None),
    ),
    404: ("The chat has no topic in Kafka.", ErrorBody("room1 is not a chat: the topic kafka.chat.room1 does not exist", "chat")),
    405: ("This method does not subscribe.", ErrorBody("GET lists; POST or DELETE with ?topic= changes", None)),
    409: (
        "Everybody follows a default chat, so it cannot be left; or the user follows as many chats as are allowed.",
        ErrorBody("everybody follows global", "topic"),
    ),
    413: ("The body, or the message, is too large.", ErrorBody("the body has more than 65536 bytes (limits.client_message_bytes)", None)),
    415: ("The body is not declared to be JSON.", ErrorBody("the header Content-Type: application/json is missing", None)),
    426: ("Not a WebSocket handshake.", ErrorBody("this address speaks WebSocket; in a browser: new WebSocket(address), …", None)),
    500: (
        "A bug of this service; it was logged.",
        ErrorBody("internal server error; it was logged, and the request is not at fault", None),
    ),
    503: ("Kafka does not answer, or no place is free. Try again later.", ErrorBody("no broker answered within 5 s", None)),
}

_HEADERS: dict[int, Fragment] = {
    401: {"WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}, "example": CHALLENGE}},
    405: {"Allow": {"description": "The methods that are allowed.", "schema": {"type": "string"}, "example": "POST, DELETE"}},
    426: {"Upgrade": {"description": "What to upgrade to.", "schema": {"type": "string", "const": "websocket"}}},
    503: {"Retry-After": {"description": "After how many seconds.", "schema": {"type": "integer"}, "example": 5}},
}

_FRAGMENT = "_kafka_chat_operation"
_AUTH = "KAFKA_CHAT_AUTH"  # in the app's configuration

_CLOSE_CODES = """\

Close codes:

| code | why | reconnect? |
|---|---|---|
| 1000 | the client closed; or `until` is reached: all of it has been sent | no |
| 1002 | the client broke the protocol | no |
| 1006 | no close frame: the network broke, the client did not read for `limits.write_seconds`, or it answered no ping | yes |
| 1007 | a text message of the client was not UTF-8 | no |
| 1008 | the client sent too much: over 1,000 messages in 10 seconds, or over 32 ops that wait for their answers | no |
| 1009 | a message of the client was too large (`limits.client_message_bytes`) | no |
| 1011 | a bug of this service ended this WebSocket | yes |
| 1012 | the service is restarting | yes |
| 1013 | no place is left (v1), messages that wait hold too much (`memory.bytes`), or `until` needs one more connection | yes |
| 4400 | v1: the username, a parameter or the first frame is wrong; the reason names it | no |
| 4401 | where tokens are asked for: the token is missing, is not valid, or has expired; a new one is needed | no |
| 4403 | where tokens are asked for: the token does not allow this, or is another user's | no |
| 4408 | v1: the frame with the cursor did not arrive within 10 seconds | yes |

v1 is the subprotocol `kafka-chat.v1`.

A refusal comes before the handshake is answered, as an HTTP status with a JSON body. A script in a browser then sees only 1006.
"""


def speaks(frames: str, *, accepted: str) -> Callable[[Route], Route]:
    """Document a WebSocket, alone or as the second use of a GET.

    Args:
        frames: its frames, in Markdown, shown after the docstring; the close codes of all WebSockets follow.
        accepted: what follows the accepted handshake.
    """
    refused = {
        "description": "A page of this origin may not use the service (`access.origins`); or, for sending, it is switched off.",
        "content": {
            "application/json": {
                "example": {"error": "pages of the origin 'https://x.example' may not use this service (access.origins)", "field": None}
            }
        },
    }
    return add_to_operation(description=frames + _CLOSE_CODES, responses={"101": {"description": accepted}, "403": refused})


def refuses(*statuses: int) -> Callable[[Route], Route]:
    """Document that a route may answer an `ErrorBody` with these statuses, and with 500."""

    def decorate(route: Route) -> Route:
        for status in (*statuses, 500):
            route = document_response(ErrorBody, status)(route)
        return route

    return decorate


def example(answer: object) -> Callable[[Route], Route]:
    """Document an example of a route's answer with 200."""
    return add_to_operation(responses={"200": {"content": {"application/json": {"example": answer}}}})


def add_to_operation(**fragment: Any) -> Callable[[Route], Route]:  # noqa: ANN401 - whatever OpenAPI has there
    """Add to a route's Operation Object; lists are extended, objects merged."""

    def decorate(route: Route) -> Route:
        _join(route.__dict__.setdefault(_FRAGMENT, {}), fragment)
        return route

    return decorate


def document(app: Quart, auth: AuthSettings) -> None:
    """Serve `/openapi.json`, `/docs` and `/redoc`, of all routes that `app` has by then or gets later.

    Args:
        app: likewise.
        auth: whether tokens are asked for, and where they may be.
    """
    app.config[_AUTH] = auth
    app.config["QUART_SCHEMA_SWAGGER_JS_URL"] = f"assets/{SWAGGER_UI}/swagger-ui-bundle.js"  # relative: right behind any proxy
    app.config["QUART_SCHEMA_SWAGGER_CSS_URL"] = f"assets/{SWAGGER_UI}/swagger-ui.css"
    app.config["QUART_SCHEMA_REDOC_JS_URL"] = f"assets/{REDOC}/redoc.standalone.js"
    QuartSchema(
        app,
        info=Info(title="kafka_chat", version=version("kafka-chat"), summary="Kafka chats on WebSockets", description=_ABOUT),
        tags=list(_TAGS),
        redoc_ui_path="/redoc",
        scalar_ui_path=None,
        conversion_preference="msgspec",
        openapi_provider_class=Provider,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]  # quart-schema's provider has it; fields stay in their order
    for endpoint in ("openapi", "redoc_ui", "swagger_ui"):
        app.view_functions[endpoint] = needs(Need.PUBLIC)(cast("Callable[..., Any]", app.view_functions[endpoint]))
    app.register_blueprint(_assets)
    app.after_request(_finish_page)


class Provider(OpenAPIProvider):
    """quart-schema's document, with WebSocket routes, examples, and models that refer to models."""

    _document: Fragment | None = None

    def schema(self) -> Fragment:
        """Return the OpenAPI document; it is made once, which takes 10 ms, since no route is added after the first request."""
        if self._document is None:
            self._document = super().schema()
            self._document["info"]["license"] = {"name": "MIT"}  # an identifier would become a link to another host
            if schemes := _security_schemes(self._auth):
                self._document["components"]["securitySchemes"] = schemes
            self._document["servers"] = [{"url": "./", "description": "beside this document"}]
        return self._document

    def generate_rules(self) -> Iterable[Rule]:
        """Yield the rules that are not hidden, WebSockets included."""
        rules = [rule for rule in self._app.url_map.iter_rules() if not _is_hidden(self._app.view_functions[rule.endpoint])]
        return sorted(rules, key=lambda rule: rule.rule)

    def build_paths(self, rule: Rule) -> tuple[Fragment, Fragment]:
        """Return the Path Item of a rule, and the models that it refers to."""
        paths, components = super().build_paths(rule)
        route = self._app.view_functions[rule.endpoint]
        added = getattr(route, _FRAGMENT, {})
        for path in paths.values():
            for operation in path.values():
                about = operation["description"].strip()
                operation["responses"] = _responses(operation["responses"])
                _join(operation, added)
                operation["description"] = f"{about}\n\n{added.get('description', '')}".strip()
                _say_who_may(operation, need_of(route), self._auth)
                operation["responses"] = dict(sorted(operation["responses"].items()))
        return paths, components

    @property
    def _auth(self) -> AuthSettings:
        return cast("AuthSettings", self._app.config[_AUTH])

    def operation_id(self, method: str, path: str, func: Callable[..., Any]) -> str:
        """Return the route's name, which is unique, because each has one method."""
        return func.__name__

    def build_path_parameter(self, name: str, converter: BaseConverter) -> Fragment:
        """Return the Parameter Object of a part of the path."""
        return {**super().build_path_parameter(name, converter), **_PARAMETERS[name]}

    def build_request_body(self, model: type[Any], source: object) -> tuple[Fragment, Fragment]:
        """Return the Request Body Object."""
        schema, components = _schema(model)
        return {"required": True, "content": {"application/json": {"schema": schema}}}, components

    def build_response_object(self, model: type[Any], headers_model: type[Any] | None) -> tuple[Fragment, Fragment]:
        """Return the Response Object."""
        schema, components = _schema(model)
        about = (inspect.getdoc(model) or "").partition("\n\n")[0]
        return {"description": about, "content": {"application/json": {"schema": schema}}}, components


def _security_schemes(auth: AuthSettings) -> Fragment:
    """Return where a token may be, for a client of this document. The page `/docs` keeps one that is pasted there in memory only."""
    if not auth.issuers:
        return {}
    schemes: Fragment = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    if auth.cookie is not None:
        schemes["cookie"] = {"type": "apiKey", "in": "cookie", "name": auth.cookie}
    if auth.query:
        schemes["query"] = {"type": "apiKey", "in": "query", "name": PARAMETER}
    return schemes


def _say_who_may(operation: Fragment, need: Need | None, auth: AuthSettings) -> None:
    """Say with which tokens an operation may be used, and what is answered without; nothing of that where none are asked for."""
    if not auth.issuers:
        operation["responses"].pop("401", None)
    elif need is not Need.PUBLIC:
        operation["responses"].setdefault("401", {"description": _REFUSALS[401][0], "headers": _HEADERS[401]})
        operation["security"] = [{name: []} for name in _security_schemes(auth)]
        if need is Need.READ and auth.anonymous:
            operation["security"].append({})


def _is_hidden(route: Callable[..., Any]) -> bool:
    return getattr(route, "_quart_schema_hidden", False)


def _schema(model: type[Any]) -> tuple[Fragment, Fragment]:
    """Return a reference to a model, and all models needed for it, with their fields described by their docstrings."""
    # quart-schema keeps the first component and drops those that it refers to.
    (schema,), components = schema_components([model], ref_template="#/components/schemas/{name}")
    for component in components.values():
        about, _, fields = inspect.cleandoc(component.get("description", "")).partition("\n\nAttributes:\n")
        component["description"] = about
        for field, description in re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", fields, re.MULTILINE):
            component["properties"][field]["description"] = " ".join(description.split())
    return schema, components


def _responses(responses: dict[int, Fragment]) -> Fragment:
    """Return the responses by status as a string, with what all errors of a status have in common."""
    found: Fragment = {}
    for status, response in responses.items():
        found[str(status)] = response
        content = response["content"]["application/json"]
        if content["schema"] == _schema(ErrorBody)[0]:
            response["description"], example = _REFUSALS[status]
            content["example"] = {"error": example.error, "field": example.field}
        if status in _HEADERS:
            response["headers"] = _HEADERS[status]
    return found


def _join(into: Fragment, added: Fragment) -> None:
    for key, value in added.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _join(into[key], value)
        elif isinstance(value, list) and isinstance(into.get(key), list):
            into[key] = [*into[key], *value]
        else:
            into[key] = value


_HEAD = """\
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <link rel="icon" href="data:,">
  <style>
    @media (max-width: 640px) {
      .swagger-ui .response-col_links { display: none; }
      .swagger-ui td code { overflow-wrap: anywhere; }
    }
  </style>
"""  # our responses have no links; their column, and long names of settings in tables, are wider than a phone

_ABSOLUTE = re.compile(r'"/[^"]*openapi\.json"')  # what quart-schema's pages request; behind a proxy we may be below a path
# ReDoc shows a relative server as `http://host/prefix/./`.
_SHOW = """\
<script>
    fetch("openapi.json").then((answer) => answer.json()).then((spec) => {
      spec.servers = [{ url: new URL(".", location).href }];
      Redoc.init(spec, { downloadUrls: [{ title: "Download", url: "openapi.json" }] }, document.getElementById("redoc"));
    });
  </script>
  """

_assets = Blueprint("assets", __name__)


@_assets.get("/assets/<path:name>")
@hide
@needs(Need.PUBLIC)
async def _asset(name: str) -> Response:
    if name not in ASSETS:
        abort(404)
    response = await send_from_directory(Path(__file__).with_name("assets"), name, mimetype=ASSETS[name], cache_timeout=ASSET_SECONDS)
    response.headers["Cache-Control"] = f"public, max-age={ASSET_SECONDS}, immutable"
    return response


async def _finish_page(response: Response) -> Response:
    """Adapt quart-schema's pages to phones and path prefixes, and forbid requests to other hosts, which the scripts know."""
    if request.endpoint in ("swagger_ui", "redoc_ui") and response.status_code == 200:  # otherwise it is a JSON error
        page = _HEAD + (await response.get_data(as_text=True)).lstrip().removeprefix("<head>")
        page = _ABSOLUTE.sub('"openapi.json"', page)
        page = page.replace('<redoc spec-url="openapi.json"></redoc>', '<div id="redoc"></div>').replace("<noscript>", f"{_SHOW}<noscript>")
        response.set_data(page)
        scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
        hashes = "".join(f" 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
            "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    return response
