"""Every error answer: `{"error": sentence, "field": name or null}`, over HTTP and before the accept of a WebSocket."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec
from quart import current_app, has_websocket_context, request, websocket
from quart_schema import RequestSchemaValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing.exceptions import WebsocketMismatch

from ...errors import BrokerError, RequestError
from .bodies import json_answer, shape_error

if TYPE_CHECKING:
    from quart import Quart, Request, Response, Websocket

    from ..ports import Serving
    from .chat_request import ChatRequest

BROKER_RETRY_SECONDS = 5

_SENTENCES = {
    400: "the request cannot be understood",
    404: "there is nothing at this address; /docs lists what there is",
    408: "the body took too long to arrive; send it again",
}


_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]  # in the order that Allow names them


class ErrorBody(msgspec.Struct, frozen=True):
    """An error, for the person who has to act.

    Attributes:
        error: a sentence that says what is wrong, and what is allowed.
        field: the wrong parameter, or field of the body; null for none.
    """

    error: str
    field: str | None


class UpgradeRequired(RequestError):
    """426: plain HTTP on a path that serves only WebSockets."""

    status = 426


def upgrade_required() -> UpgradeRequired:
    """Return the error for a request that is not a handshake; it says how to make one.

    It names no URL, because behind a proxy the scheme, port and path prefix are different.
    """
    return UpgradeRequired(
        "this address speaks WebSocket; in a browser: new WebSocket(address), which begins with ws in place of http, or wss of https",
        headers={"Upgrade": "websocket", "Connection": "Upgrade"} if request.http_version == "1.1" else None,
    )


def error_body(sentence: str, field: str | None) -> ErrorBody:
    """Return an error's body, in strict JSON, whatever text of the client it quotes."""
    return ErrorBody(_clean(sentence), None if field is None else _clean(field))


async def answer_error(error: RequestError) -> Response:
    """Return the answer to an error found after the route has returned."""
    return await _request_error(error)


def answer_errors(app: Quart) -> None:
    """Make `app` answer every exception in a request with an `ErrorBody`."""
    # These are coroutine functions because Quart runs other ones in a thread.
    app.register_error_handler(RequestError, _request_error)
    app.register_error_handler(BrokerError, _broker_error)
    app.register_error_handler(RequestSchemaValidationError, _schema_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _bug)


async def _request_error(error: RequestError) -> Response:
    return _answer(error.status, str(error), error.field, error.headers)


async def _broker_error(error: BrokerError) -> Response:
    return _answer(error.status, str(error), None, {"Retry-After": str(BROKER_RETRY_SECONDS)})


async def _schema_error(error: RequestSchemaValidationError) -> Response:
    cause = error.validation_error
    return await _request_error(shape_error(cause) if isinstance(cause, msgspec.ValidationError) else RequestError(str(cause)))


async def _http_error(error: HTTPException) -> Response:
    """Answer an error that Quart or werkzeug raises: no such route, no such method, too large."""
    if isinstance(error, MethodNotAllowed) and has_websocket_context():
        error = WebsocketMismatch()  # a route without GET; for a handshake, the method is not the problem
    status = error.code or 500
    if status >= 500:
        return await _bug(error)
    # Quart keeps it in the request, and its traceback's frames refer to the request: a reference cycle for each 404.
    error.__traceback__ = error.__context__ = None
    headers = {name: value for name, value in error.get_headers() if name.lower() not in ("content-type", "content-length")}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        headers["Allow"] = ", ".join(sorted(error.valid_methods, key=_METHODS.index))
    return _answer(status, _sentence(error, status, headers), None, headers)


def _sentence(error: HTTPException, status: int, headers: dict[str, str]) -> str:
    if error.description and error.description != type(error).description:
        return error.description  # ours
    if isinstance(error, WebsocketMismatch):
        return "this address speaks plain HTTP; a WebSocket goes to /receive-message/client/{username} or /subscribing/{username}"
    if status == 405:
        return f"{_asked().method} is not possible here; allowed is {headers.get('Allow', 'nothing')}"
    if status == 413:
        most, limit = cast("ChatRequest", _asked()).most_body_bytes, current_app.config["MAX_CONTENT_LENGTH"]
        return f"the body has more than {most} bytes" + (" (limits.client_message_bytes)" if most == limit else "")
    return _SENTENCES.get(status) or error.description or error.name


async def _bug(error: Exception) -> Response:
    """Answer 500 with a sentence that reveals nothing; the log has the traceback."""
    asked = _asked()
    if (service := cast("Serving", current_app).service) is not None:
        service.telemetry.request_failed(method=asked.method, path=asked.path, error=error)
    else:
        current_app.logger.error("%s %s failed before the service was open", asked.method, ascii(asked.path), exc_info=error)
    return _answer(500, "internal server error; it was logged, and the request is not at fault", None, {})


def _answer(status: int, sentence: str, field: str | None, headers: dict[str, str]) -> Response:
    if (service := cast("Serving", current_app).service) is not None:
        service.telemetry.request_refused(status=status)
    return json_answer(error_body(sentence, field), status, headers)


def _clean(text: str) -> str:
    """Return `text` without lone surrogates, which strict JSON cannot contain."""
    return text.encode("utf-8", "replace").decode()


def _asked() -> Request | Websocket:
    return websocket if has_websocket_context() else request
