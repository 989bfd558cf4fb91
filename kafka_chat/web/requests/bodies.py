"""Strict JSON bodies of requests and answers."""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec
from quart import Response, current_app, request
from werkzeug.exceptions import UnsupportedMediaType

from ...chat.json_shape import said_plainly
from ...errors import RequestError

Model = TypeVar("Model", bound=msgspec.Struct)


def json_answer(body: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response whose body is `body`."""
    return current_app.response_class(msgspec.json.encode(body), status, headers, content_type="application/json")


async def read_body(model: type[Model]) -> Model:
    """Return the body of the current request.

    Quart's own parser accepts NaN and lone surrogates, which are not strict JSON, and reads a body without a content type
    as null.

    Raises:
        UnsupportedMediaType: it is not declared as JSON.
        RequestError: it is not JSON, or does not match `model`.
        RequestEntityTooLarge: it is over `limits.client_message_bytes`.
    """
    if not request.is_json:
        declared = f"is {request.mimetype[:60]!a}" if request.mimetype else "is missing"
        raise UnsupportedMediaType(f"the header Content-Type {declared}; the body needs Content-Type: application/json")
    return parse_json(await request.get_data(cache=True, as_text=False, parse_form_data=False), model, what="the body")


def parse_json(data: bytes, model: type[Model], *, what: str) -> Model:
    """Decode a client's JSON.

    Args:
        data: the JSON.
        model: the type to decode.
        what: its name, for the error.

    Raises:
        RequestError: it is not JSON, or does not match.
    """
    try:
        data.decode()  # msgspec does not validate the values that it skips
        return msgspec.json.decode(data, type=model)
    except UnicodeDecodeError as error:
        raise RequestError(f"{what} is not UTF-8 from byte {error.start} on") from error
    except msgspec.ValidationError as error:
        raise shape_error(error, what=what) from error
    except msgspec.DecodeError as error:
        raise _not_json(data, error, what=what) from error
    except RecursionError as error:
        raise RequestError(f"{what} is nested too deeply") from error


def shape_error(error: msgspec.ValidationError, *, what: str = "the body") -> RequestError:
    """Return msgspec's error about a body or a message as a sentence that names the field."""
    sentence, field = said_plainly(error, what=what)
    return RequestError(sentence, field=field)


def _not_json(data: bytes, error: msgspec.DecodeError, *, what: str) -> RequestError:
    """Return why `data` is not strict JSON, with the field if Python's lenient decoder finds it."""
    try:
        found = json.loads(data, parse_constant=_Constant)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        for field, value in found.items():
            name = field[:100]
            if isinstance(value, _Constant):
                return RequestError(f"{name} is {value}, which JSON does not have; a string is needed", field=name)
            if not _is_unicode(field) or (isinstance(value, str) and not _is_unicode(value)):
                return RequestError(f"{name} has half of a surrogate pair, which is not a character", field=name)
    return RequestError(f"{what} is not JSON: {error}")


class _Constant(str):
    """NaN, Infinity or -Infinity."""

    __slots__ = ()


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
