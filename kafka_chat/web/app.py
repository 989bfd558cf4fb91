"""The web application: routes, error answers, documents."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import trio
from quart import Quart, Websocket, current_app, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from ..access.decision import Need
from ..errors import Overloaded
from ..process.gc_tuning import RequestCount
from ..process.standard_streams import exit_now
from .documents.openapi import document
from .lifespan import ServiceLifespan
from .ports import CROWDED, check_room
from .requests.chat_request import ChatRequest
from .requests.errors import answer_error, answer_errors
from .requests.hosts import Hosts
from .requests.needs import check_all_declare, need_of
from .requests.origins import Origins
from .requests.page_headers import complete_refusal
from .requests.parameters import check_count
from .requests.raw_path import RestConverter, raw_path
from .requests.token import TokenFinder
from .routes.browser_client import browser_client
from .routes.health import health
from .routes.history import history
from .routes.metrics import metrics
from .routes.receive import receive
from .routes.receive_events import events
from .routes.sending import sending
from .routes.subscribing import subscribing
from .server.connection import ChatTCPServer
from .server.policy import CONNECTION
from .streams.event_stream import ChatHTTPConnection, held_bytes
from .streams.websocket import ChatWebsocketConnection

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from quart import Response
    from quart.typing import ResponseReturnValue
    from quart.wrappers.base import BaseRequestWebsocket

    from ..settings.model import Settings
    from .ports import Service

# The endpoints whose GET and HEAD change nothing and end by themselves: pages of other origins may request them, but cannot read the
# answer. All other routes, including new ones, are closed to them (`access.origins`). `/history` waits only with a `Prefer` header,
# which a page of another origin cannot send without a preflight.
READING = frozenset(
    {
        "receive.no_websocket",
        "history.read_history",
        "subscribing.following",
        "sending.no_websocket",
        "health.show_health",
        "health.show_readiness",
        "metrics.show_metrics",
        "browser_client.show_client",
        "openapi",
        "redoc_ui",
        "swagger_ui",
        "assets._asset",
    }
)
SMALL_BYTES = 16 * 1024  # an answer up to this size is always sent; most sockets take it at once
_NOWHERE = "/\0"  # a path that no route has


WITHOUT_TRIO = (
    "this server runs the app on asyncio, but the app needs trio; start it with `kafka-chat serve`, "
    "or with `hypercorn -k trio kafka_chat.asgi:app`"
)
WRONG_SERVER = 2  # the exit code of wrong settings: retrying does not help


class ChatApp(QuartTrio):
    """The application.

    Attributes:
        service: the service behind the routes, while the lifespan lasts.
        open_service: opens it; `application.py` sets it.
        origins: the web pages that may use it.
        requests: counts requests, for the garbage collector.
        tokens: finds the tokens that requests show.
    """

    request_class = ChatRequest  # type: ignore[mutable-override]

    origins: Origins
    requests: RequestCount
    tokens: TokenFinder

    service: Service | None = None
    open_service: Callable[[], AbstractAsyncContextManager[Service]]

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Return the adapter that matches a request to a route by path, method and kind only.

        Paths with empty segments match no route; werkzeug would ignore leading ones. Quart would also use the Host header, and
        fail if it is not a host name; and the scheme, so that a WebSocket behind a proxy that says `https` would match nothing.
        """
        if request is None:
            return super().create_url_adapter(request)
        scheme = "ws" if isinstance(request, Websocket) else "http"
        path = _NOWHERE if b"//" in raw_path(request.scope) else request.path
        return _Routes(self.url_map, "localhost", request.root_path, self.url_map.default_subdomain, scheme, path, request.method)

    async def handle_user_exception(self, error: Exception | BaseExceptionGroup) -> HTTPException | ResponseReturnValue:
        """Answer an error. All errors of a group are logged; quart-trio would handle only the first."""
        if isinstance(error, ExceptionGroup) and len(error.exceptions) > 1:
            return await Quart.handle_user_exception(self, error)
        return await super().handle_user_exception(error)

    async def asgi_app(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as wide as Quart's own
        """Serve one connection, after rewriting paths that Quart cannot read."""
        if not trio.lowlevel.in_trio_run():
            sys.stderr.write(f"kafka_chat: {WITHOUT_TRIO}\n")
            sys.stderr.flush()
            # Exit at once: servers take any exception here, even SystemExit, as a missing lifespan, and go on serving.
            exit_now(WRONG_SERVER)
        if scope.get("path") == "":  # `GET ?x HTTP/1.1`; Quart expects a first character
            scope = {**scope, "path": "/", "raw_path": b"/"}
        elif not scope.get("path", "/").startswith("/"):  # Quart parses it as a URL, and fails on an invalid host
            scope = {**scope, "path": _path_of(scope["path"])}
        if not scope.get("query_string", b"").isascii():
            scope = {**scope, "query_string": scope["query_string"].decode(errors="replace").encode()}
        self.requests.add()
        connection = scope.get("state", {}).get(CONNECTION)
        if isinstance(connection, ChatTCPServer) and connection.is_spare:
            scope[CROWDED] = connection.policy.connections.limit
        if scope["type"] == "http":
            send = self.origins.sharing(scope, send)
        await super().asgi_app(scope, receive, send)


class _Routes(MapAdapter):
    """werkzeug's adapter, whose errors are raised without their traceback.

    The request keeps such an error until its end. Its traceback would refer to a function of werkzeug's that refers to itself: two
    objects of cyclic garbage for each request without a route.
    """

    def match(self, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - as werkzeug's
        """Return the route of the current request; see `MapAdapter`."""
        try:
            return super().match(*args, **named)
        except HTTPException as error:
            error.__context__ = None
            raise error.with_traceback(None)  # noqa: B904 - it is the same one


def create_app(settings: Settings) -> ChatApp:
    """Return the application; it has no service yet."""
    app = ChatApp("kafka_chat", static_folder=None)
    app.asgi_http_class = ChatHTTPConnection
    app.asgi_websocket_class = ChatWebsocketConnection
    app.asgi_lifespan_class = ServiceLifespan
    app.requests = RequestCount()
    app.tokens = TokenFinder(settings.auth, settings.access.origins)
    app.origins = Origins(settings.access.origins, reading=READING, credentials=settings.auth.cookie is not None)
    for check_first in (Hosts(settings.access.hosts).check_current, app.origins.check_request):
        app.before_request(check_first)
    for check_first in (Hosts(settings.access.hosts).check_current, app.origins.check_handshake):
        app.before_websocket(check_first)
    app.after_websocket(complete_refusal)
    app.config["RESPONSE_TIMEOUT"] = None  # `ChatHTTPConnection` has a timeout by the size of the answer
    app.config["MAX_CONTENT_LENGTH"] = settings.limits.client_message_bytes
    app.url_map.converters["rest"] = RestConverter
    app.url_map.merge_slashes = False  # an empty name gets an error, not a redirect
    app.before_request(_check_parameters)
    app.before_request(_check_room)
    app.before_request(_read_whole_body)
    app.after_request(_bound_answers)
    if settings.auth.issuers:
        app.after_request(_keep_nowhere)
    for blueprint in (receive, events, history, subscribing, sending, health, metrics, browser_client):
        app.register_blueprint(blueprint)
    answer_errors(app)
    document(app, settings.auth)
    check_all_declare(app)
    return app


async def _check_parameters() -> None:
    check_count(request.query_string)


async def _check_room() -> None:
    """Refuse a request on a connection beyond `limits.connections`, unless it asks for health or metrics."""
    if request.blueprint not in (health.name, metrics.name):
        check_room(request.scope)


async def _bound_answers(response: Response) -> Response:
    """Answer 503 instead of a large answer, if other clients do not read theirs."""
    found = cast("ChatApp", current_app).service
    if found is not None and found.owes_too_much and held_bytes(response) > SMALL_BYTES:
        return await answer_error(Overloaded("messages that clients have not read fill the memory (memory.bytes); try again later"))
    return response


async def _keep_nowhere(response: Response) -> Response:
    """Let no cache keep what one token was answered: a cookie is not a reason for it not to."""
    rule = request.url_rule
    if rule is not None and need_of(cast("ChatApp", current_app).view_functions[rule.endpoint]) is not Need.PUBLIC:
        response.headers.setdefault("Cache-Control", "no-store")
    return response


async def _read_whole_body() -> None:
    """Answer 413 to a body that is too large, also on a route without a body."""
    await request.get_data()


def _path_of(target: str) -> str:
    """Return the path of an absolute target such as `http://host/path`; of any other target, a path without a route."""
    _, separator, rest = target.partition("://")
    return "/" + rest.partition("/")[2] if separator else _NOWHERE
