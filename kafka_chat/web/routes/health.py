"""Whether the process serves, and whether clients should be sent to it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from quart import Blueprint, Response
from quart_schema import document_response, tag

from ..bodies import json_answer
from ..errors import BROKER_RETRY_SECONDS
from ..seams import service

health = Blueprint("health", __name__)


class Health(msgspec.Struct, frozen=True):
    """The process serves."""

    status: Literal["Consumer is running"] = "Consumer is running"


class Ready(msgspec.Struct, frozen=True):
    """Clients may be sent here."""

    ready: bool
    problems: Annotated[tuple[str, ...], msgspec.Meta(description="what keeps it from serving, a sentence each")]
    notices: Annotated[tuple[str, ...], msgspec.Meta(description="what the operator should know, though it serves")]


class NotReady(msgspec.Struct, frozen=True):
    """Clients should not be sent here now."""

    error: Annotated[str, msgspec.Meta(description="the problems, as one sentence")]
    field: None
    ready: bool
    problems: Annotated[tuple[str, ...], msgspec.Meta(description="what keeps it from serving, a sentence each")]
    notices: Annotated[tuple[str, ...], msgspec.Meta(description="what the operator should know")]


@health.get("/health")
@tag(["Operation"])
@document_response(Health)
async def show_health() -> Response:
    """Say that the process serves.

    Always 200 while it does, whatever Kafka does: for a liveness probe.
    """
    return json_answer(Health())


@health.get("/ready")
@tag(["Operation"])
@document_response(Ready)
@document_response(NotReady, 503)
async def show_readiness() -> Response:
    """Say whether clients should be sent here.

    503 while no broker answers, the live end makes no progress, the subscriptions are not read yet, or the process is
    about to stop; the body says what. A single partition without a leader is a notice, with 200. For a readiness probe.
    """
    found = service().readiness()
    problems, notices = tuple(found.problems), tuple(found.notices)
    if found.ready:
        return json_answer(Ready(ready=True, problems=problems, notices=notices))
    body = NotReady(f"not ready: {'; '.join(problems)}", None, ready=False, problems=problems, notices=notices)
    return json_answer(body, 503, {"Retry-After": str(BROKER_RETRY_SECONDS)})
